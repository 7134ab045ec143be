"""Matrix products with a fused epilogue as registered ops.

``v = alpha * a @ b + bias``, ``out = act(v) + beta * residual``; the preactivation ``v`` is a second output when a
gradient will need it. Batch dimensions may be views of any strides, stride 0 included; nothing is copied to make
them fit, or to broadcast them. Given None for the output, the kernels' launcher allocates it with torch's allocator,
which is cheaper than to do so from Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .activation import ACTIVATIONS, PLAIN, real
from .backends import state
from .registry import is_compiling, register

Shape = Sequence[int]


def product_shape(a: Shape, b: Shape) -> tuple[int, ...]:
    """The shape of torch.matmul of tensors of these shapes."""
    return (*torch.broadcast_shapes(a[:-2], b[:-2]), *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def _linear_shape(x: Tensor, weight: Tensor) -> tuple[int, ...]:
    return (*x.shape[:-1], weight.shape[0])


# two operations for each multiplication and its addition; as torch's formulas, epilogues count nothing
def _matmul_flops(a: Shape, b: Shape, *_: object) -> int:
    return 2 * math.prod(product_shape(a, b)) * a[-1]


def _linear_flops(x: Shape, weight: Shape, *_: object) -> int:
    return 2 * math.prod(x) * weight[0]


def _linear_backward_flops(
    g: Shape,
    x: Shape | None,
    weight: Shape | None,
    preact: Shape | None,
    act: str,
    p0: float,
    p1: float,
    wants: Sequence[bool],
) -> int:
    k = (x or weight or (0,))[-1]  # one of them may not be needed
    return 2 * math.prod(g) * k * sum(wants[:2])


def _optional(t: Tensor | None) -> Tensor | None:
    return t if t is None else real(t)


@register(
    "matmul(Tensor a, Tensor b, Tensor? bias, Tensor? residual, str act, float p0, float p1, float alpha, float beta)"
    " -> Tensor",
    lambda a, b, *_: a.new_empty(product_shape(a.shape, b.shape)),
    _matmul_flops,
)
def matmul_body(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    act: str,
    p0: float,
    p1: float,
    alpha: float,
    beta: float,
) -> Tensor:
    if a.is_neg() or b.is_neg():
        a, b = real(a), real(b)
    if bias is not None or residual is not None:
        bias, residual = _optional(bias), _optional(residual)
    return state.native.matmul(None, a, b, bias, residual, None, ACTIVATIONS[act], p0, p1, alpha, beta)


@register(
    "linear(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str act, float p0, float p1) -> Tensor",
    lambda x, w, *_: x.new_empty(_linear_shape(x, w)),
    _linear_flops,
)
def linear_body(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, act: str, p0: float, p1: float
) -> Tensor:
    if x.is_neg() or weight.is_neg():
        x, weight = real(x), real(weight)
    if bias is not None and bias.is_neg():
        bias = bias.resolve_neg()
    return state.native.linear(None, x, weight, bias, _optional(residual), None, ACTIVATIONS[act], p0, p1)


@register(
    "linear_preact(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str act, float p0, float p1)"
    " -> (Tensor, Tensor)",
    lambda x, w, *_: (x.new_empty(_linear_shape(x, w)), x.new_empty(_linear_shape(x, w))),
    _linear_flops,
)
def linear_preact_body(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, act: str, p0: float, p1: float
) -> tuple[Tensor, Tensor]:
    return state.native.linear_preact(
        real(x), real(weight), _optional(bias), _optional(residual), ACTIVATIONS[act], p0, p1
    )


def _gradients_fake(
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    preact: Tensor | None,
    act: str,
    p0: float,
    p1: float,
    wants: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    gx = (g.shape[0], weight.shape[1]) if wants[0] else (0,)
    gw = (g.shape[1], x.shape[1]) if wants[1] else (0,)
    return g.new_empty(gx), g.new_empty(gw), g.new_empty(g.shape[1:] if wants[2] else (0,))


@register(
    "linear_backward(Tensor g, Tensor? x, Tensor? weight, Tensor? preact, str act, float p0, float p1, bool[3] wants)"
    " -> (Tensor, Tensor, Tensor)",
    _gradients_fake,
    _linear_backward_flops,
)
def linear_backward_body(
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    preact: Tensor | None,
    act: str,
    p0: float,
    p1: float,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `linear` for g [M, N], x [M, K], weight [N, K]; an empty tensor where not wanted."""
    grads = _gradients(g, x, weight, preact, act, p0, p1, wants)
    gx, gw, gb = (g.new_empty(0) if t is None else t for t in grads)
    return gx, gw, gb


def _gradients(
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    preact: Tensor | None,
    act: str,
    p0: float,
    p1: float,
    wants: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    g, x, weight, preact = real(g), _optional(x), _optional(weight), _optional(preact)
    return state.native.linear_backward(g, x, weight, preact, ACTIVATIONS[act], p0, p1, *wants)


_ops = torch.ops.neurokern


def _plain(*tensors: Tensor | None) -> bool:
    for t in tensors:  # not all(...): a generator costs half a microsecond
        if t is not None and type(t) not in PLAIN:
            return False
    return not is_compiling()


def matmul(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    act: str = "identity",
    p0: float = 0,  # ints: of floats that have a place, torch.compile(dynamic=True) makes variables
    p1: float = 0,
    alpha: float = 1,
    beta: float = 1,
) -> Tensor:
    """act(alpha * a @ b + bias) + beta * residual.

    a [..., M, K] or [K], b [..., K, N] or [K], their batch shapes broadcast; bias [N], residual of a shape that
    broadcasts to the result's; any strides.
    """
    if type(a) in PLAIN and type(b) in PLAIN and residual is None and bias is None and not is_compiling():
        if a.is_neg() or b.is_neg():
            a, b = real(a), real(b)
        return state.native.matmul(None, a, b, None, None, None, ACTIVATIONS[act], p0, p1, alpha, beta)
    run = matmul_body if _plain(a, b, bias, residual) else _ops.matmul
    return run(a, b, bias, residual, act, p0, p1, alpha, beta)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    act: str = "identity",
    p0: float = 0,
    p1: float = 0,
) -> Tensor:
    """act(x @ weight.T + bias) + residual: x [..., K], weight [N, K], bias [N], residual [..., N]."""
    if (
        type(x) in PLAIN
        and type(weight) in PLAIN
        and (bias is None or type(bias) in PLAIN)
        and (residual is None or type(residual) in PLAIN)
        and not is_compiling()
    ):
        if x.is_neg() or weight.is_neg() or (bias is not None and bias.is_neg()):
            x, weight, bias = real(x), real(weight), _optional(bias)
        if residual is not None:
            residual = real(residual)
        return state.native.linear(None, x, weight, bias, residual, None, ACTIVATIONS[act], p0, p1)
    return _ops.linear(x, weight, bias, residual, act, p0, p1)


def linear_preact(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, act: str, p0: float, p1: float
) -> tuple[Tensor, Tensor]:
    """`linear` that also returns the preactivation x @ weight.T + bias."""
    run = linear_preact_body if _plain(x, weight, bias, residual) else _ops.linear_preact
    return run(x, weight, bias, residual, act, p0, p1)


def linear_backward(
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    preact: Tensor | None,
    act: str,
    p0: float,
    p1: float,
    wants: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(gx, gw, gb) of `linear` for g [M, N], x [M, K], weight [N, K]; without meaning where not in ``wants``.

    x may be None where gw is not wanted, and weight where gx is not.
    """
    if _plain(g, x, weight):
        return _gradients(g, x, weight, preact, act, p0, p1, wants)
    return _ops.linear_backward(g, x, weight, preact, act, p0, p1, list(wants))
