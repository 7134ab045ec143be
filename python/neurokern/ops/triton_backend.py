"""The Triton kernels under the names and arguments of ``neurokern._C``, with their launches recorded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..kernels.triton import activation as _activation
from ..kernels.triton import matmul as _matmul
from ..kernels.triton import softmax as _softmax
from .backends import record


def _recorded(op: str, function: Callable[..., None]) -> Callable[..., None]:
    def run(*args: Any) -> None:
        function(*args, record=partial(record, op, "triton"))

    return run


unary = _recorded("unary", _activation.unary)
unary_backward = _recorded("unary_backward", _activation.unary_backward)
unary_backward2 = _recorded("unary_backward2", _activation.unary_backward2)
gated = _recorded("gated", _activation.gated)
gated_backward = _recorded("gated_backward", _activation.gated_backward)
prelu = _recorded("prelu", _activation.prelu)
prelu_backward = _recorded("prelu_backward", _activation.prelu_backward)
softmax = _recorded("softmax", _softmax.softmax)
softmax_backward = _recorded("softmax_backward", _softmax.softmax_backward)
matmul = _recorded("matmul", _matmul.matmul)
activation_bias_backward = _recorded("activation_bias_backward", _matmul.activation_bias_backward)


def linear(out, x, weight, bias, residual, preact, act, p0, p1) -> None:
    """act(x @ weight.T + bias) + residual as one product: leading dimensions of x become one where strides allow."""
    if x.dim() == 1:
        out, x = out.unsqueeze(0), x.unsqueeze(0)
        residual = None if residual is None else residual.unsqueeze(0)
        preact = None if preact is None else preact.unsqueeze(0)
    b = weight.t().expand(*x.shape[:-2], -1, -1)
    matmul(out, x, b, bias, residual, preact, act, p0, p1, 1.0, 1.0)
