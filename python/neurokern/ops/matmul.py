"""Matrix products and linear layers with a fused epilogue as ops.

Batch dimensions may be views of any strides, stride 0 included; nothing is copied to make them fit, or to broadcast
them. Each gradient needs the other operand, and only that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.dims import of
from ..core.op import op
from .activation import TORCH, unary_gradient

Shape = Sequence[int]


def _product_shape(a: Shape, b: Shape) -> tuple[int, ...]:
    """The shape of torch.matmul of tensors of these shapes."""
    return (*torch.broadcast_shapes(a[:-2], b[:-2]), *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def _rows(t: Tensor) -> Tensor:
    """All leading dimensions as one; a view where strides allow."""
    return t.reshape(math.prod(t.shape[:-1]), t.shape[-1])


# two operations for each multiplication and its addition; as torch's formulas, epilogues count nothing
def _matmul_flops(a: Shape, b: Shape, *_: object) -> int:
    return 2 * math.prod(_product_shape(a, b)) * a[-1]


def _matmul_backward_flops(g: Shape, a: Shape | None, b: Shape | None, *more: Any) -> int:
    k = a[-1] if a is not None else b[-2 if len(b) > 1 else 0] if b is not None else 0
    return 2 * math.prod(g) * k * sum(more[-1][:2])


def _linear_flops(x: Shape, weight: Shape, *_: object) -> int:
    return 2 * math.prod(x) * weight[0]


def _linear_backward_flops(g: Shape, x: Shape | None, weight: Shape | None, *more: Any) -> int:
    k = (x or weight or (0,))[-1]  # one of them may not be needed
    return 2 * math.prod(g) * k * sum(more[-1][:2])


# ---- products ----

_PRODUCTS = {"matmul": torch.matmul, "mm": torch.mm, "bmm": torch.bmm, "addmm": torch.mm}


def _matmul_by_torch(a: Tensor, b: Tensor, residual: Tensor | None, face: str, alpha: float, beta: float) -> Tensor:
    if face == "addmm":
        return torch.addmm(residual, a, b, alpha=alpha, beta=beta)
    return _PRODUCTS[face](a, b)


def _matmul_gradients(
    g: Tensor, a: Tensor | None, b: Tensor | None, face: str, alpha: float, beta: float, wants: list[bool]
) -> tuple[Tensor | None, ...]:
    """Products of the same kind; autograd sums over what was broadcast."""
    gr = (g if beta == 1 else g * beta) if wants[2] else None

    def times(x: Tensor, y: Tensor) -> Tensor:
        made = matmul(x, y, None, "matmul", 1.0, 1.0)
        return made if alpha == 1 else made * alpha

    if a is b is None:
        return None, None, gr
    # a vector on the left took a dimension from g, and so did one on the right
    if a is not None:
        row = a.dim() == 1
        column = b.dim() == 1 if b is not None else g.dim() == 0 if row else g.dim() < a.dim()
    else:
        column = b.dim() == 1
        row = g.dim() == 0 if column else g.dim() < b.dim()
    if row and column:
        return (g * b * alpha if wants[0] else None, g * a * alpha if wants[1] else None, gr)
    g = g.unsqueeze(-1) if column else g
    g = g.unsqueeze(-2) if row else g
    ga = gb = None
    if wants[0]:
        right = b.unsqueeze(1) if column else b
        ga = times(g, right.mT)
        ga = ga.flatten(0, -2).sum(0) if row else ga
    if wants[1]:
        left = a.unsqueeze(0) if row else a
        if b is not None and b.dim() <= 2 < left.dim():  # one b for a batch: rows of one product
            left, g = _rows(left), _rows(g)
        gb = times(left.mT, g)
        gb = gb.squeeze(-1) if column else gb
    return ga, gb, gr


def _matmul_gradients_fake(
    g: Tensor, a: Tensor | None, b: Tensor | None, face: str, alpha: float, beta: float, wants: list[bool]
) -> tuple[Tensor | None, ...]:
    with torch.no_grad():
        return _matmul_gradients(g, a, b, face, alpha, beta, wants)


def _matmul_dims(y: Shape | None, a: Shape | None, b: Shape | None, residual: Shape | None, *_: Any) -> Any:
    """Batches, rows and columns of matrices; what is broadcast stays whole, and so do vectors."""
    if y is None:
        y = _product_shape(a, b)
    vectors = min(len(t) for t in (y, a, b) if t is not None) < 2 or (a is None and len(y) < len(b))
    if vectors:
        whole = [[None] * len(t or ()) for t in (a, b, residual)]
        return whole, [[None] * len(y)], [[None] * len(y)] * 3
    batch = of(y)[:-2]

    def names(t: Shape | None, shape: Shape, *matrix: Any) -> list[Any]:
        """Of a tensor that broadcasts to the shape."""
        every = [*batch, *matrix]
        size = shape if t is None else t
        return [n if i == s else None for n, i, s in zip(every[-len(size) :], size, shape[-len(size) :], strict=True)]

    k = a[-1] if a is not None else b[-2] if b is not None else 1
    left, right = (*y[:-2], y[-2], k), (*y[:-2], k, y[-1])
    tensors = [names(a, left, "m", "k"), names(b, right, "k", "n"), names(residual, y, "m", "n")]
    rows = b is not None and len(b) == 2  # its gradient is one product, too
    gradients = [[*batch, "m", "k"], ["k", "n"] if rows else [*batch, "k", "n"], [*batch, "m", "n"]]
    return tensors, [[*batch, "m", "n"]], gradients


# face: the torch function that it is
matmul = op(
    "matmul(Tensor input, Tensor other, Tensor? residual, str face, Scalar alpha, Scalar beta) -> Tensor",
    fake=lambda a, b, *_: a.new_empty(_product_shape(a.shape, b.shape)),
    saves="input:other other:input",
    gradients=_matmul_gradients_fake,
    formula=_matmul_gradients,
    keeps=True,  # the dimensions of other
    torch=_matmul_by_torch,
    label="face",
    autocast="lower",
    flops=_matmul_flops,
    backward_flops=_matmul_backward_flops,
    dims=_matmul_dims,
)

# ---- linear layers ----


def _linear_fake(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def linear_by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    act: str = "identity",
    p0: float = 0.0,
    p1: float = 0.0,
) -> Tensor:
    """`linear_activation` of torch's functions."""
    return _linear_recorded_by_torch(x, weight, bias, residual, act, p0, p1)[0]


def _linear_recorded_by_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, act: str, p0: float, p1: float
) -> tuple[Tensor, Tensor]:
    preact = torch.nn.functional.linear(x, weight, bias)
    y = TORCH[act](preact, p0, p1)
    return y if residual is None else y + residual, preact


def _linear_gradients(
    g: Tensor, x: Tensor | None, weight: Tensor | None, wants: list[bool]
) -> tuple[Tensor | None, ...]:
    rows = _rows(g)
    gx = matmul(rows, weight, None, "mm", 1.0, 1.0).view(*g.shape[:-1], weight.shape[1]) if wants[0] else None
    gw = matmul(rows.t(), _rows(x), None, "mm", 1.0, 1.0) if wants[1] else None
    return gx, gw, rows.sum(0) if wants[2] else None, g if wants[3] else None


def _linear_gradients_fake(g: Tensor, x: Tensor | None, weight: Tensor | None, *more: Any) -> tuple[Tensor | None, ...]:
    wants = more[-1]
    return (
        g.new_empty((*g.shape[:-1], weight.shape[1])) if wants[0] else None,
        g.new_empty((g.shape[-1], x.shape[-1])) if wants[1] else None,
        g.new_empty(g.shape[-1:]) if wants[2] else None,
        torch.empty_like(g) if wants[3] else None,
    )


def _activation_gradients(
    g: Tensor | None,
    g_preact: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    preact: Tensor,
    act: str,
    p0: float,
    p1: float,
    wants: list[bool],
) -> tuple[Tensor | None, ...]:
    gz = None if g is None else unary_gradient(g, preact, act, p0, p1)
    if g_preact is not None:
        gz = g_preact if gz is None else gz + g_preact
    if gz is None:
        return None, None, None, None
    gx, gw, gb, _ = _linear_gradients(gz, x, weight, [*wants[:3], False])
    return gx, gw, gb, g if wants[3] else None


def _expanded(name: str, t: Tensor, x: Tensor, shape: Shape, expected: str) -> Tensor:
    """The argument of that name as the output's shape, or a RuntimeError that names it."""
    if t.dtype != x.dtype or t.device != x.device:
        what = ("dtype", t.dtype, x.dtype) if t.dtype != x.dtype else ("device", t.device, x.device)
        kind, found, wanted = (str(w).removeprefix("torch.") for w in what)
        raise RuntimeError(f"neurokern.linear: argument {name} has {kind} {found}, expected {wanted} as argument input")
    try:
        return t.expand(shape)
    except RuntimeError:
        raise RuntimeError(
            f"neurokern.linear: argument {name} has shape {list(t.shape)}, expected {expected}"
        ) from None


def _as_torch_takes(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, *activation: Any) -> Any:
    """A weight of one row, a bias or residual that broadcasts."""
    run = linear_activation if activation else linear
    if x.is_nested or weight.dim() not in (1, 2) or x.dim() < 1 or x.shape[-1] != weight.shape[-1]:
        return x, weight, bias, residual, *activation
    if weight.dim() == 1:
        if residual is not None:
            return x, weight, bias, residual, *activation
        if bias is not None and bias.dim() and bias.shape != (1,) and not activation:
            bias = _expanded("bias", bias, x, x.shape[:-1], f"one that broadcasts to {list(x.shape[:-1])}").unsqueeze(
                -1
            )
        return run(x, weight.unsqueeze(0), bias, None, *activation).squeeze(-1)
    shape, n = (*x.shape[:-1], weight.shape[0]), weight.shape[0]
    fits = f"one that broadcasts to {list(shape)}"
    if bias is not None and bias.shape != shape[-1:]:
        if residual is not None or activation:
            raise RuntimeError(f"neurokern.linear: argument bias has shape {list(bias.shape)}, expected [{n}]")
        while bias.dim() > len(shape) and bias.shape[0] == 1:
            bias = bias.squeeze(0)
        bias, residual = None, _expanded("bias", bias, x, shape, f"[{n}] or {fits}" if x.dim() > 1 else fits)
    elif residual is not None and residual.shape != shape:
        residual = _expanded("residual", residual, x, shape, fits)
    return x, weight, bias, residual, *activation


def _linear_dims(y: Shape | None, x: Shape | None, k: str | None) -> tuple[list[Any], list[Any]]:
    lead = of(x, y)[:-1]
    return [[*lead, k], ["out", k], ["out"], [*lead, "out"]], [[*lead, "out"]] * 2


_LINEAR = {
    "torch": linear_by_torch,
    "autocast": "lower",
    "prepare": _as_torch_takes,
    "gradients": _linear_gradients_fake,
    "flops": _linear_flops,
    "backward_flops": _linear_backward_flops,
}
linear = op(
    "linear(Tensor input, Tensor weight, Tensor? bias, Tensor? residual) -> Tensor",
    fake=_linear_fake,
    saves="input:weight weight:input",
    formula=_linear_gradients,
    dims=lambda y, x, *_: _linear_dims(y, x, "k"),
    **_LINEAR,
)
linear_activation = op(
    "linear_activation(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, str act, Scalar p0, Scalar p1)"
    " -> (Tensor y, Tensor preact)",
    fake=lambda *args: (_linear_fake(*args), _linear_fake(*args)),
    returns=1,
    attached="preact",
    title="linear",
    saves="input:weight weight:input preact",
    torch_recorded=_linear_recorded_by_torch,
    formula=_activation_gradients,
    # a sum that is not whole yet has no activation
    dims=lambda y, x, weight, bias, residual, act, *_: _linear_dims(y, x, "k" if act == "identity" else None),
    **_LINEAR,
)
