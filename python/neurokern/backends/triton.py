"""The Triton kernels under the names of ``neurokern._C``, which calls them once it has read, checked and allocated.

Each function takes the outputs first, None for one that is not wanted, and then the arguments of the ``_C`` function.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..kernels.triton import activation as _activation
from ..kernels.triton import attention as _attention
from ..kernels.triton import attention_backward as _attention_backward
from ..kernels.triton import attention_cache as _attention_cache
from ..kernels.triton import matmul as _matmul
from ..kernels.triton import normalization as _normalization
from ..kernels.triton import random as _random
from ..kernels.triton import softmax as _softmax
from .triton_convolution import *  # noqa: F403
from .triton_launch import IDS as _IDS
from .triton_launch import Maybe
from .triton_launch import recorded as _recorded
from .triton_launch import rounded as _rounded
from .triton_pooling import *  # noqa: F403
from .triton_rearrangement import *  # noqa: F403
from .triton_resampling import *  # noqa: F403

_KINDS = {"softmax": 0, "log_softmax": 1, "softmin": 2}
_GATED = {
    "glu": ("sigmoid", False),
    "swiglu": ("silu", True),
    "geglu": ("gelu", True),
    "geglu_tanh": ("gelu_tanh", True),
    "reglu": ("relu", True),
}


def unary(out: Tensor, x: Tensor, act: str, p0: float, p1: float) -> None:
    """out = act(x)."""
    p0 = _rounded(x, act, p0, False)
    _recorded("unary", _activation.unary, out, x, _IDS[act], p0, p1)


unary_ = unary_from_output = unary


def unary_backward(out: Tensor, g: Tensor, x: Tensor, act: str, p0: float, p1: float, *kept: object) -> None:
    """out = g * act'(x)."""
    p0 = _rounded(x, act, p0)
    _recorded("unary_backward", _activation.unary_backward, out, g, x, _IDS[act], p0, p1)


def unary_from_output_backward(
    out: Tensor, g: Tensor, y: Tensor, act: str, p0: float, p1: float, *kept: object
) -> None:
    """out = g * act', of the output."""
    _recorded("unary_backward", _activation.unary_backward, out, g, y, _IDS[act], p0, p1, from_output=True)


def _second(
    from_output: bool,
    dg: Tensor | None,
    dx: Tensor | None,
    gg: Tensor,
    g: Tensor,
    x: Tensor,
    act: str,
    p0: float,
    p1: float,
    wants: Any,
) -> None:
    more = (_IDS[act], _rounded(x, act, p0), p1)
    if dg is not None:
        _recorded("unary_backward", _activation.unary_backward, dg, gg, x, *more, from_output=from_output)
    if dx is not None:
        _recorded("unary_backward2", _activation.unary_backward2, dx, gg, g, x, *more, from_output=from_output)


unary_backward2 = partial(_second, False)
unary_from_output_backward2 = partial(_second, True)


def _halves(x: Tensor, dim: int, first: bool) -> tuple[Tensor, ...]:
    a, b = x.chunk(2, dim)
    return (a, b) if first else (b, a)


def glu(out: Tensor, x: Tensor, dim: int, kind: str) -> None:
    """out = act(one half of x along dim) * the other."""
    act, first = _GATED[kind]
    _recorded("gated", _activation.gated, out, *_halves(x, dim, first), _IDS[act], 0.0, 0.0)


def glu_backward(gx: Tensor, g: Tensor, x: Tensor, dim: int, kind: str) -> None:
    """Both halves' gradients, in the halves of gx."""
    act, first = _GATED[kind]
    halves = (*_halves(gx, dim, first), g, *_halves(x, dim, first))
    _recorded("gated_backward", _activation.gated_backward, *halves, _IDS[act], 0.0, 0.0)


def _per_channel(x: Tensor, weight: Tensor) -> Tensor:
    """A PReLU weight as a view of x's shape."""
    if weight.numel() == 1 or x.dim() < 2:
        return weight.reshape(()).expand(x.shape)
    return weight.view([-1 if i == 1 else 1 for i in range(x.dim())]).expand(x.shape)


def prelu(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """out = x where x > 0, else weight * x."""
    _recorded("prelu", _activation.prelu, out, x, _per_channel(x, weight))


def prelu_backward(gx: Tensor, gw: Tensor | None, g: Tensor, x: Tensor, weight: Tensor, wants: Any) -> None:
    """The gradients of prelu."""
    _recorded("prelu_backward", _activation.prelu_backward, gx, gw, g, x, _per_channel(x, weight))


def rrelu(out: Tensor, x: Tensor, noise: Tensor) -> None:
    """out = x where x > 0, else noise * x."""
    _recorded("rrelu", _activation.prelu, out, x, noise)


def rrelu_backward(gx: Tensor, g: Tensor, x: Tensor, noise: Tensor, wants: Any) -> None:
    """The gradient of rrelu to x."""
    _recorded("prelu_backward", _activation.prelu_backward, gx, None, g, x, noise)


def softmax(out: Tensor, x: Tensor, dim: int, kind: str) -> None:
    """out = softmax, log_softmax or softmin of x along dim."""
    _recorded("softmax", _softmax.softmax, out, x, dim, _KINDS[kind])


def softmax_backward(gx: Tensor, g: Tensor, y: Tensor, dim: int, kind: str) -> None:
    """The gradient of softmax from its output."""
    _recorded("softmax_backward", _softmax.softmax_backward, gx, g, y, dim, _KINDS[kind])


def _product(
    out: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    preact: Tensor | None = None,
    act: str = "identity",
    p0: float = 0.0,
    p1: float = 0.0,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> None:
    """out = act(alpha * a @ b + bias) + beta * residual with the shapes of torch.matmul."""
    a, b = a.unsqueeze(0) if a.dim() == 1 else a, b.unsqueeze(1) if b.dim() == 1 else b
    if alpha == 0 or a.shape[-1] == 0:  # as torch: what is multiplied by 0 is not read
        a, b, alpha = a[..., :0], b[..., :0, :], 1.0
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
    y, residual, preact = (
        t if t is None else t.expand(out.shape).view(*batch, a.shape[-2], b.shape[-1]) for t in (out, residual, preact)
    )
    p0 = _rounded(out, act, p0, False)
    _recorded("matmul", _matmul.matmul, y, a, b, bias, residual, preact, _IDS[act], p0, p1, alpha, beta)


def matmul(out: Tensor, a: Tensor, b: Tensor, residual: Tensor | None, face: str, alpha: float, beta: float) -> None:
    """out = alpha * a @ b + beta * residual."""
    _product(out, a, b, None, residual if beta else None, alpha=alpha, beta=beta)


def _rows(t: Tensor) -> Tensor:
    return t.reshape(math.prod(t.shape[:-1]), t.shape[-1])


def _unsqueezed(t: Tensor, row: bool, column: bool) -> Tensor:
    t = t.unsqueeze(-1) if column else t
    return t.unsqueeze(-2) if row else t


def matmul_backward(
    ga: Tensor | None,
    gb: Tensor | None,
    g: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    face: str,
    alpha: float,
    beta: float,
    kept: int | None,
    wants: Any,
) -> None:
    """The gradients of matmul, of the batch of g, or of the shape of a shared b."""
    column = (kept if isinstance(kept, int) else b.dim()) == 1
    row = a.dim() == 1 if a is not None else g.dim() < (2 if column else b.dim()) - column
    g = _unsqueezed(g, row, column)
    if ga is not None:
        right = b.unsqueeze(1) if b.dim() == 1 else b
        _product(_unsqueezed(ga, row, False), g, right.mT, alpha=alpha)
    if gb is not None:
        left = a.unsqueeze(0) if row else a
        out = _unsqueezed(gb, False, column)
        if out.dim() == 2 < left.dim():
            left, g = _rows(left), _rows(g)
        _product(out, left.mT, g, alpha=alpha)


def linear(
    out: Tensor,
    preact: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    act: str = "identity",
    p0: float = 0.0,
    p1: float = 0.0,
) -> None:
    """out = act(x @ weight.T + bias) + residual; preact: the argument of act."""
    rows, x, residual, preact = (
        t.unsqueeze(0) if t is not None and t.dim() == 1 else t for t in (out, x, residual, preact)
    )
    _product(rows, x, weight.t().expand(*x.shape[:-2], -1, -1), bias, residual, preact, act, p0, p1)


linear_activation = linear


def _gradients(
    gx: Tensor | None,
    gw: Tensor | None,
    gb: Tensor | None,
    gz: Tensor | None,
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    z: Tensor | None,
    act: str,
    p0: float,
    p1: float,
) -> None:
    g, x, z, gx = (t if t is None else _rows(t) for t in (g, x, z, gx))
    if gz is not None or gb is not None:
        p0 = _rounded(g, act, p0)
        _recorded("activation_bias_backward", _matmul.activation_bias_backward, gz, gb, g, z, _IDS[act], p0, p1)
    d = g if gz is None else gz
    if gx is not None:
        _product(gx, d, weight)
    if gw is not None:
        _product(gw, d.t(), x)


def linear_backward(
    gx: Tensor | None,
    gw: Tensor | None,
    gb: Tensor | None,
    gz: Tensor | None,
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    wants: Any,
) -> None:
    """The gradients of linear."""
    _gradients(gx, gw, gb, None, g, x, weight, None, "identity", 0.0, 0.0)


def linear_activation_backward(
    gx: Tensor | None,
    gw: Tensor | None,
    gb: Tensor | None,
    gz: Tensor | None,
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    preact: Tensor,
    act: str,
    p0: float,
    p1: float,
    wants: Any,
) -> None:
    """The gradients of linear_activation."""
    _gradients(gx, gw, gb, gz, g, x, weight, preact, act, p0, p1)


def layer_norm(
    y: Tensor, mean: Maybe, rstd: Tensor, x: Tensor, weight: Maybe, bias: Maybe, shape: Any, eps: float
) -> None:
    """y = (x - mean) * rstd * weight + bias."""
    _recorded("layer_norm", _normalization.normalize, y, x, weight, bias, mean, rstd, len(shape), eps)


def rms_norm(y: Tensor, mean: None, rstd: Tensor, x: Tensor, weight: Maybe, shape: Any, eps: float) -> None:
    """y = x * rstd * weight."""
    _recorded("rms_norm", _normalization.normalize, y, x, weight, None, None, rstd, len(shape), eps)


def layer_norm_backward(gx: Maybe, gw: Maybe, gb: Maybe, *given: Any) -> None:
    """The gradients of layer_norm."""
    g, x, weight, mean, rstd, shape, _, _ = given
    tensors = (gx, gw, gb, g, x, weight, mean, rstd)
    _recorded("layer_norm_backward", _normalization.normalize_backward, *tensors, len(shape))


def rms_norm_backward(gx: Maybe, gw: Maybe, gb: None, *given: Any) -> None:
    """The gradients of rms_norm."""
    g, x, weight, rstd, shape, _, _ = given
    tensors = (gx, gw, None, g, x, weight, None, rstd)
    _recorded("rms_norm_backward", _normalization.normalize_backward, *tensors, len(shape))


def uniform(out: Tensor, like: Tensor, seed: int, block: int, stream: int) -> None:
    """out = numbers of [0, 1) by Philox's counters."""
    _recorded("uniform", _random.uniform, out, seed, block, stream)


def _with_heads(t: Tensor | None, rank: int, inner: int = 2) -> Tensor | None:
    """Of a query of two dims: with a dim of one head before the last ``inner`` dims."""
    return t.unsqueeze(-1 - inner) if t is not None and rank < 3 else t


def _scores_like(q: Tensor, k: Tensor, *repeated: Tensor | None) -> list[Tensor | None]:
    """Mask or bias in the shape of the scores."""
    shape = (*q.shape[:-1], k.shape[-2])
    return [t if t is None else t.expand(shape) for t in repeated]


def attention(
    out: Tensor, lse: Maybe, q: Tensor, k: Tensor, v: Tensor, mask: Maybe, bias: Maybe, slopes: Maybe, *rest: Any
) -> None:
    """out = softmax(scale * q k') v, by the rules of kernels/attention.h."""
    rank = q.dim()
    mask, bias = _scores_like(q, k, mask, bias)
    out, q, k, v, mask, bias = (_with_heads(t, rank) for t in (out, q, k, v, mask, bias))
    slopes = slopes if slopes is None else slopes.expand(q.shape[:-2])
    _recorded("attention", _attention.attention, out, _with_heads(lse, rank, 1), q, k, v, mask, bias, slopes, *rest)


attention_with_lse = scaled_dot_product_attention = attention


def _attention_gradients(
    gq: Maybe, gk: Maybe, gv: Maybe, g_bias: Maybe, g_sink: Maybe, g: Tensor, g_lse: Maybe, q: Tensor, k: Tensor,
    v: Tensor, mask: Maybe, bias: Maybe, slopes: Maybe, sink: Maybe, cu_q: Maybe, cu_k: Maybe, seed: Maybe,
    out: Tensor, lse: Tensor, *parameters: Any,
) -> None:  # fmt: skip
    rank = q.dim()
    mask, bias, g_bias = _scores_like(q, k, mask, bias, g_bias)
    gq, gk, gv, g_bias, g, q, k, v, mask, bias, out = (
        _with_heads(t, rank) for t in (gq, gk, gv, g_bias, g, q, k, v, mask, bias, out)
    )
    g_lse, lse = (_with_heads(t, rank, 1) for t in (g_lse, lse))
    slopes = slopes if slopes is None else slopes.expand(q.shape[:-2])
    _recorded(
        "attention_backward", _attention_backward.attention_backward, gq, gk, gv, g_bias, g_sink, g, g_lse, q, k, v,
        mask, bias, slopes, sink, cu_q, cu_k, seed, out, lse, *parameters[:4],
    )  # fmt: skip


def attention_backward(gq: Maybe, gk: Maybe, gv: Maybe, g_bias: Maybe, g_sink: Maybe, g: Tensor, *given: Any) -> None:
    """The gradients of attention."""
    _attention_gradients(gq, gk, gv, g_bias, g_sink, g, None, *given)


attention_with_lse_backward = _attention_gradients


def append_to_cache(out: Tensor, cache: Tensor, new: Tensor, lengths: Tensor, table: Maybe) -> None:
    """Rows of new to their places in the cache, which is out."""
    _recorded("append_to_cache", _attention_cache.append_to_cache, cache, new, lengths, table)


def attention_of_cache(
    out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, table: Maybe, slopes: Maybe, *rest: Any
) -> None:
    """out = softmax(scale * q k') v, of keys and values that are in a cache."""
    slopes = slopes if slopes is None else slopes.expand(q.shape[:2])
    _recorded(
        "attention_of_cache", _attention_cache.attention_of_cache, out, lse, q, k, v, lengths, table, slopes, *rest
    )
