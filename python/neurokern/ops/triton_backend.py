"""The Triton kernels under the names and arguments of ``neurokern._C``, with their launches recorded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..kernels.triton import activation as _activation
from ..kernels.triton import matmul as _matmul
from ..kernels.triton import softmax as _softmax
from .activation import ACTIVATIONS, expand_weight
from .backends import record
from .matmul import product_shape


def _recorded(op: str, function: Callable[..., None]) -> Callable[..., None]:
    def run(*args: Any) -> None:
        function(*args, record=partial(record, op, "triton"))

    return run


def _allocating(
    op: str, function: Callable[..., None], like: int, layout: torch.memory_format = torch.preserve_format
) -> Callable[..., Tensor]:
    """With None for the output: a new tensor like the input number ``like``. Returns the output."""
    launch = _recorded(op, function)

    def run(out: Tensor | None, *args: Any) -> Tensor:
        out = torch.empty_like(args[like], memory_format=layout) if out is None else out
        launch(out, *args)
        return out

    return run


_unary = _allocating("unary", _activation.unary, 0)
_unary_contiguous = _allocating("unary", _activation.unary, 0, torch.contiguous_format)


def unary(out: Tensor | None, x: Tensor, act: int, p0: float = 0.0, p1: float = 0.0) -> Tensor:
    """act(x), laid out as torch's."""
    return (_unary_contiguous if act == ACTIVATIONS["logsigmoid"] else _unary)(out, x, act, p0, p1)


unary_backward = _allocating("unary_backward", _activation.unary_backward, 1)
unary_backward2 = _allocating("unary_backward2", _activation.unary_backward2, 2)
gated = _recorded("gated", _activation.gated)
gated_backward = _recorded("gated_backward", _activation.gated_backward)
rrelu = _allocating("rrelu", _activation.prelu, 0, torch.contiguous_format)
prelu_backward = _recorded("prelu_backward", _activation.prelu_backward)


def prelu(out: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight * x; the weight runs along dimension 1 or is one value."""
    return _prelu(out, x, expand_weight(x, weight))


_prelu = _allocating("prelu", _activation.prelu, 0)


def glu(x: Tensor, dim: int, act: int, first: bool) -> Tensor:
    """act(one half of x along dim) * the other; first: act is on the first half."""
    a, b = x.chunk(2, dim) if first else reversed(x.chunk(2, dim))
    out = torch.empty_like(a)
    gated(out, a, b, act, 0.0, 0.0)
    return out


def glu_backward(g: Tensor, x: Tensor, dim: int, act: int, first: bool) -> Tensor:
    """Gradient of glu for x: both halves' gradients, written into the halves of one tensor."""
    gx = torch.empty_like(x)
    (a, b), (ga, gb) = x.chunk(2, dim), gx.chunk(2, dim)
    if not first:
        a, b, ga, gb = b, a, gb, ga
    gated_backward(ga, gb, g, a, b, act, 0.0, 0.0)
    return gx


softmax = _allocating("softmax", _softmax.softmax, 0, torch.contiguous_format)
softmax_backward = _allocating("softmax_backward", _softmax.softmax_backward, 1, torch.contiguous_format)
activation_bias_backward = _recorded("activation_bias_backward", _matmul.activation_bias_backward)


_product = _recorded("matmul", _matmul.matmul)


def matmul(
    out: Tensor | None,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    preact: Tensor | None,
    act: int,
    p0: float,
    p1: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """act(alpha * a @ b + bias) + beta * residual into out, a new tensor when None, with the shapes of torch.matmul."""
    if out is None:
        out = a.new_empty(product_shape(a.shape, b.shape))
    row, column = a.dim() == 1, b.dim() == 1
    a, b = a.unsqueeze(0) if row else a, b.unsqueeze(1) if column else b
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
    y, residual, preact = (
        t if t is None else t.expand(out.shape).view(*batch, a.shape[-2], b.shape[-1]) for t in (out, residual, preact)
    )
    _product(y, a, b, bias, residual, preact, act, p0, p1, alpha, beta)
    return out


def linear(
    out: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    preact: Tensor | None,
    act: int,
    p0: float,
    p1: float,
) -> Tensor:
    """act(x @ weight.T + bias) + residual into out, a new tensor when None."""
    if out is None:
        out = x.new_empty((*x.shape[:-1], weight.shape[0]))
    rows, x, residual, preact = (
        t.unsqueeze(0) if t is not None and t.dim() == 1 else t for t in (out, x, residual, preact)
    )
    b = weight.t().expand(*x.shape[:-2], -1, -1)
    _product(rows, x, b, bias, residual, preact, act, p0, p1, 1.0, 1.0)
    return out


def linear_preact(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, act: int, p0: float, p1: float
) -> tuple[Tensor, Tensor]:
    """linear into two new tensors: (out, the argument of act)."""
    preact = x.new_empty((*x.shape[:-1], weight.shape[0]))
    return linear(None, x, weight, bias, residual, preact, act, p0, p1), preact


def linear_backward(
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    preact: Tensor | None,
    act: int,
    p0: float,
    p1: float,
    wants_x: bool,
    wants_w: bool,
    wants_b: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients (gx, gw, gb) of linear for g [M, N], x [M, K], weight [N, K]; None where not wanted."""
    gz = g.new_empty(g.shape) if preact is not None else None
    gb = g.new_empty(g.shape[-1:]) if wants_b else None
    if gz is not None or gb is not None:
        activation_bias_backward(gz, gb, g, preact, act, p0, p1)
    d = g if gz is None else gz
    gx = matmul(None, d, weight, None, None, None, 0, 0.0, 0.0, 1.0, 1.0) if wants_x else None
    gw = matmul(None, d.t(), x, None, None, None, 0, 0.0, 0.0, 1.0, 1.0) if wants_w else None
    return gx, gw, gb
