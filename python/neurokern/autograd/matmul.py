"""Gradients of the matrix products: dgrad, wgrad, bias and activation, from the same ops that made the forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.autograd import Function

from .. import _C
from ..ops import matmul as ops
from ..ops.activation import TORCH
from ..ops.backends import to_torch, watched, why_not_ours
from .activation import NAMES, recording, unary_backward
from .direct import direct


def _rows(t: Tensor) -> Tensor:
    """All leading dimensions as one; a view where strides allow."""
    if t.dim() == 2:
        return t
    return t.unsqueeze(0) if t.dim() == 1 else t.flatten(0, -2)


def _needs(ctx: Any, n: int) -> tuple[bool, ...]:
    """Which of the first n tensors want a gradient; the direct way leaves out the last that are None."""
    return (*ctx.needs_input_grad, *[False] * n)[:n]


Spec = tuple[str, float, float]  # activation and its parameters


class Linear(Function):
    """y = act(x @ weight.T + bias) + residual."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, spec: Spec
    ) -> Tensor:
        ctx.spec = spec
        if spec[0] == "identity":
            wants_x, wants_w = ctx.needs_input_grad[:2]  # each gradient needs the other, and only that
            ctx.save_for_backward(x if wants_w else None, weight if wants_x else None, None, None)
            return ops.linear(x, weight, bias, residual)
        out, preact = ops.linear_preact(x, weight, bias, residual, *spec)
        ctx.save_for_backward(x, weight, preact, bias)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return Linear.gradients(ctx, g, *ctx.spec)

    @staticmethod
    def gradients(ctx: Any, g: Tensor, act: str, p0: float, p1: float) -> tuple[Tensor | None, ...]:
        """Those of `backward`."""
        x, weight, preact, bias = ctx.saved_tensors
        wants_x, wants_w, wants_b, wants_r = _needs(ctx, 4)
        gr = g if wants_r else None
        shape = (*g.shape[:-1], weight.shape[-1]) if wants_x else None
        if (is_grad_enabled() and recording(g, x, weight, bias)) or watched(g):
            # the preactivation is made again, as a function that can be differentiated once more
            gz = g if act == "identity" else unary_backward(g, linear(x, weight, bias), act, p0, p1)
            gz = gz.reshape(g.shape[:-1].numel(), g.shape[-1])  # batches of gradients have no flatten
            gx = matmul(gz, weight).view(shape) if wants_x else None
            gw = matmul(gz.t(), _rows(x)) if wants_w else None
            return gx, gw, gz.sum(0) if wants_b else None, gr, None
        g, x, preact = (t if t is None else _rows(t) for t in (g, x, preact))
        gx, gw, gb = ops.linear_backward(g, x, weight, preact, act, p0, p1, (wants_x, wants_w, wants_b))
        gx = gx.view(shape) if wants_x else None
        return gx, gw if wants_w else None, gb if wants_b else None, gr, None


class _LinearById(Linear):
    """`Linear` with the activation's number for its name."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        act, p0, p1 = ctx.spec
        return Linear.gradients(ctx, g, NAMES[act], p0, p1)


def linear_by_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, act: str, p0: float, p1: float
) -> Tensor:
    """`linear` of torch's functions."""
    y = TORCH[act](torch.nn.functional.linear(x, weight, bias), p0, p1)
    return y if residual is None else y + residual


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    act: str = "identity",
    p0: float = 0,  # ints, see IDENTITY in functional
    p1: float = 0,
) -> Tensor:
    """Linear layer with fused epilogue, recorded for autograd when it is wanted."""
    if watched() and (reason := why_not_ours(x, weight, bias, residual)) is not None:
        return to_torch("linear", reason, lambda: linear_by_torch(x, weight, bias, residual, act, p0, p1))
    if is_grad_enabled() and (
        weight.requires_grad
        or x.requires_grad
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
    ):
        return Linear.apply(x, weight, bias, residual, (act, p0, p1))
    return ops.linear(x, weight, bias, residual, act, p0, p1)


# input, weight, bias, residual and then act, p0, p1
direct_linear = direct(
    _C.layer,
    _C.layer_backward,
    _LinearById,
    recorded=_C.layer_recorded,
    tensors=4,
    saves=0,
    takes_out=False,
    autocasts=True,
    asks_needs=True,
)


class Matmul(Function):
    """y = alpha * a @ b + beta * residual; autograd sums the residual's gradient where it broadcast."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, residual: Tensor | None, alpha: float, beta: float) -> Tensor:
        wants_a, wants_b = ctx.needs_input_grad[:2]
        uneven = a.dim() != b.dim() or a.dim() < 2  # their shapes are needed, even where their values are not
        ctx.save_for_backward(a if wants_b or uneven else None, b if wants_a or uneven else None)
        ctx.spec = (0, alpha, beta)  # what the direct way keeps
        # beta 0: the residual is not read, NaN or not; its gradient is zeros
        return ops.matmul(a, b, None, residual if beta else None, "identity", 0.0, 0.0, alpha, beta)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        _, alpha, beta = ctx.spec
        wants_a, wants_b, wants_r = _needs(ctx, 3)
        gr = (g if beta == 1.0 else g * beta) if wants_r else None
        ga = gb = None
        if a is None or b is None:  # autograd sums over what was broadcast
            ga = matmul(g, b.mT, alpha=alpha) if wants_a else None
            gb = matmul(a.mT, g, alpha=alpha) if wants_b else None
            return ga, gb, gr, None, None
        left, right = a.unsqueeze(0) if a.dim() == 1 else a, b.unsqueeze(1) if b.dim() == 1 else b
        g = g.unsqueeze(-1) if right is not b else g
        g = g.unsqueeze(-2) if left is not a else g
        if wants_a:
            ga = matmul(g, right.mT, alpha=alpha).sum_to_size(left.shape).view(a.shape)
        if wants_b and right.dim() == 2 < left.dim():
            gb = matmul(_rows(left).mT, _rows(g), alpha=alpha).view(b.shape)
        elif wants_b:
            gb = matmul(left.mT, g, alpha=alpha).sum_to_size(right.shape).view(b.shape)
        return ga, gb, gr, None, None


def matmul(a: Tensor, b: Tensor, residual: Tensor | None = None, alpha: float = 1, beta: float = 1) -> Tensor:
    """alpha * a @ b + beta * residual with torch.matmul's shapes, recorded for autograd when it is wanted.

    The residual broadcasts to the result, and is taken for matrices and batches of them only.
    """
    if watched(a, b) and (reason := why_not_ours(a, b, residual)) is not None:
        return to_torch("matmul", reason, lambda: _by_torch(a, b, residual, alpha, beta))
    if (a.requires_grad or b.requires_grad or (residual is not None and residual.requires_grad)) and is_grad_enabled():
        return _recorded(a, b, residual, alpha, beta)
    return ops.matmul(a, b, None, residual if beta else None, "identity", 0.0, 0.0, alpha, beta)


def _by_torch(a: Tensor, b: Tensor, residual: Tensor | None, alpha: float, beta: float) -> Tensor:
    y = torch.matmul(a, b) if alpha == 1 else torch.matmul(a, b) * alpha
    return y if residual is None or beta == 0 else y + residual * beta


def _recorded(a: Tensor, b: Tensor, residual: Tensor | None, alpha: float, beta: float) -> Tensor:
    if a.dim() == 0 or b.dim() == 0:
        raise RuntimeError("neurokern.matmul: an argument has shape [], expected at least 1 dimension")
    if b.dim() == 2 < a.dim() and residual is None and alpha == 1.0:
        return linear(a, b.t())  # all leading dimensions are rows of one product, in the gradient too
    return Matmul.apply(a, b, residual, alpha, beta)


# a, b, residual and then ndim, alpha, beta; with ndim, a and b have that many dimensions and one batch
direct_product = direct(
    _C.product,
    _C.product_backward,
    Matmul,
    recorded=_C.product_recorded,
    tensors=3,
    saves=0,
    takes_out=False,
    autocasts=True,
    asks_needs=True,
)
