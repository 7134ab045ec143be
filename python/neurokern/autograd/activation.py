"""Gradients of the elementwise, gated and softmax ops; every backward is itself differentiable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.autograd import Function
from torch.compiler import is_dynamo_compiling

from .. import _C
from ..ops import activation as ops
from ..ops.backends import to_torch, watched, why_not_ours
from .direct import direct


def recording(*tensors: Tensor | None) -> bool:
    """Whether autograd will want a graph of this op."""
    return is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


class Unary(Function):
    """y = act(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
        y = ops.unary(x, act, p0, p1)
        # of some, as torch does, the output: the input may be written to before the gradient is wanted
        from_output = act == "relu" or (act in ops.TORCH_FROM_OUTPUT and p0 == ops.FROM_OUTPUT)
        ctx.save_for_backward(y if from_output else x)
        ctx.spec = (act, p0, p1)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return unary_backward(g, x, *ctx.spec), None, None, None


class _UnaryById(Unary):
    """`Unary` with the activation's number for its name."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        act, p0, p1 = ctx.spec[:3]
        return unary_backward(g, x, NAMES[act], p0, p1)


NAMES = {number: name for name, number in ops.ACTIVATIONS.items()}
direct_unary = direct(_C.unary, _C.unary_backward, _UnaryById, recorded=_C.unary_recorded)
# softplus: CUDA's autocast runs it in float32
direct_autocasts = direct(_C.unary, _C.unary_backward, _UnaryById, recorded=_C.unary_recorded, autocasts=True)
direct_from_output = direct(_C.unary, _C.unary_backward, _UnaryById, recorded=_C.unary_recorded, keeps_output=True)
direct_unary_ = direct(_C.unary, in_place=True)  # without a gradient
direct_from_output_ = direct(_C.unary, _C.unary_backward, _UnaryById, keeps_output=True, in_place=True)


def kept_in_place(act: str, p0: float) -> bool:
    """Whether the output is kept and tells the derivative, as torch does: another's may be written to before."""
    return act == "relu" or (act == "leaky_relu" and p0 > 0)


def _autograd_is_compiled() -> bool:
    module = sys.modules.get("torch._dynamo.compiled_autograd")  # to import it takes seconds
    return module is not None and module.in_compiled_autograd_region


class UnaryInplace(Function):
    """x = act(x) in place; saves the output where it tells the derivative, else ``before``, a copy of the input.

    The gradient goes to the copy then: a second derivative finds the input by it, which x holds no more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor | None, act: str, p0: float, p1: float) -> Tensor:
        ops.unary_(x, act, p0, p1)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x if before is None else before)
        ctx.spec = (act, p0, p1)
        ctx.in_part = x._is_view()
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        gx = unary_backward(g, x, *ctx.spec)
        if not ctx.needs_input_grad[1]:
            return gx, None, None, None, None
        # of a view, autograd takes None for the gradient of all that it is a part of; compiled, it adds the None
        return torch.zeros_like(g) if ctx.in_part or _autograd_is_compiled() else None, gx, None, None, None


class UnaryBackward(Function):
    """gx = g * act'(x)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.spec = (act, p0, p1)
        return ops.unary_backward(g, x, act, p0, p1)

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor | None, ...]:
        g, x = ctx.saved_tensors
        dg = unary_backward(gg, x, *ctx.spec) if ctx.needs_input_grad[0] else None
        dx = unary_backward2(gg, g, x, *ctx.spec) if ctx.needs_input_grad[1] else None
        return dg, dx, None, None, None


class UnaryBackward2(Function):
    """gg * g * act''(x); what lies beyond is torch's."""

    @staticmethod
    def forward(ctx: Any, gg: Tensor, g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
        ctx.save_for_backward(gg, g, x)
        ctx.spec = (act, p0, p1)
        return ops.unary_backward2(gg, g, x, act, p0, p1)

    @staticmethod
    def backward(ctx: Any, ggg: Tensor) -> tuple[Tensor | None, ...]:
        def third() -> tuple[Tensor, ...]:
            return _vjp(lambda *t: _pulled2(*t, *ctx.spec), ggg, *ctx.saved_tensors)

        return *to_torch(ctx.spec[0], "third derivatives have no kernel", third), None, None, None


def unary(x: Tensor, act: str, p0: float = 0.0, p1: float = 0.0) -> Tensor:
    """act(x), recorded for autograd when it is wanted."""
    recorded = x.requires_grad and is_grad_enabled()
    if (recorded or watched(x)) and (reason := why_not_ours(x)) is not None:
        return to_torch(act, reason, lambda: ops.TORCH[act](x, p0, p1))
    return Unary.apply(x, act, p0, p1) if recorded else ops.unary(x, act, p0, p1)


def unary_(x: Tensor, act: str, p0: float = 0.0, p1: float = 0.0) -> Tensor:
    """x = act(x) in place, recorded for autograd when it is wanted; returns x."""
    recorded = is_grad_enabled() and x.requires_grad
    if recorded and x.is_leaf:
        raise RuntimeError(
            f"neurokern.{act}: a leaf tensor of shape {list(x.shape)} that requires grad is used in place; "
            "expected a tensor that was computed, or inplace=False"
        )
    if (recorded or watched()) and (reason := why_not_ours(x)) is not None:
        return to_torch(act, reason, lambda: ops.TORCH[act](x, p0, p1, inplace=True))
    if recorded:
        if is_dynamo_compiling():  # it makes copies out of place, and Inductor asks less of what those copy
            return x.copy_(Unary.apply(x.clone(), act, p0, p1))
        return UnaryInplace.apply(x, None if kept_in_place(act, p0) else x.clone(), act, p0, p1)
    ops.unary_(x, act, p0, p1)
    return x


def _vjp(f: Callable[..., Tensor], g: Tensor, *x: Tensor) -> tuple[Tensor, ...]:
    """The gradients of f at x by torch.func, which refuses the user's saved-tensor hooks: they rest meanwhile."""
    hooks = None if is_dynamo_compiling() else torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is None:
        return torch.func.vjp(f, *x)[1](g)
    torch._C._autograd._pop_saved_tensors_default_hooks()
    try:
        return _vjp(f, g, *x)  # they nest
    finally:
        torch._C._autograd._push_saved_tensors_default_hooks(*hooks)


def _pulled(f: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Tensor:
    """The gradient of f at x by torch, itself a function that torch can transform."""
    return _vjp(f, g, x)[0]


def _pulled1(g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    """The first derivative by torch."""
    if act in ops.TORCH_FROM_OUTPUT and p0 == ops.FROM_OUTPUT:
        return ops.TORCH_FROM_OUTPUT[act](g, x)
    return _pulled(lambda t: ops.TORCH[act](t, p0, p1), x, g)


def _pulled2(gg: Tensor, g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    """The second derivative by torch."""
    return _pulled(lambda t: _pulled1(g, t, act, p0, p1), x, gg)


def unary_backward(g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    """g * act'(x), recorded when a second derivative is wanted."""
    if watched(g, x) and (reason := why_not_ours(g, x)) is not None:
        return to_torch(act, reason, lambda: _pulled1(g, x, act, p0, p1))
    if recording(g, x):
        return UnaryBackward.apply(g, x, act, p0, p1)
    return ops.unary_backward(g, x, act, p0, p1)


def unary_backward2(gg: Tensor, g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    """gg * g * act''(x), recorded so that what would differentiate it is told."""
    if watched(gg, g, x) and (reason := why_not_ours(gg, g, x)) is not None:
        return to_torch(act, reason, lambda: _pulled2(gg, g, x, act, p0, p1))
    return UnaryBackward2.apply(gg, g, x, act, p0, p1)


class Gated(Function):
    """y = act(one half of x) * the other half."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, act: str, first: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.spec = (dim, act, first)
        return ops.glu(x, dim, act, first)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return gated_backward(g, x, *ctx.spec), None, None, None


def gated_backward(g: Tensor, x: Tensor, dim: int, act: str, first: bool) -> Tensor:
    """Gradient of `glu`, recorded when a second derivative is wanted."""
    if not (recording(g, x) or watched(g)):
        return ops.glu_backward(g, x, dim, act, first)
    a, b = x.chunk(2, dim) if first else reversed(x.chunk(2, dim))
    ga, gb = unary_backward(g * b, a, act, 0.0, 0.0), g * unary(a, act)
    return torch.cat((ga, gb) if first else (gb, ga), dim)


class _GatedById(Gated):
    """`Gated` with the activation's number for its name."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        dim, act, first = ctx.spec
        return gated_backward(g, ctx.saved_tensors[0], dim, NAMES[act], first)


direct_glu = direct(_C.glu, _C.glu_backward, _GatedById, takes_out=False)


def glu(x: Tensor, dim: int, act: str, first: bool) -> Tensor:
    """Gated unit over the halves of x along dim, recorded for autograd when it is wanted."""
    if x.requires_grad and is_grad_enabled():
        return Gated.apply(x, dim, act, first)
    return ops.glu(x, dim, act, first)


class PReLU(Function):
    """y = x where x > 0, else weight * x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return ops.prelu(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if not (recording(g, x, weight) or watched(g)):
            return ops.prelu_backward(g, x, weight)
        # piecewise linear: the mask is a constant of the second derivative
        w = ops.expand_weight(x, weight)
        positive = x > 0
        gx = torch.where(positive, g, g * w)
        gw = torch.where(positive, torch.zeros_like(x), g * x).sum_to_size(_reduced(x, weight))
        return gx, gw.reshape(weight.shape)


direct_prelu = direct(_C.prelu, _C.prelu_gradients, PReLU, tensors=2, autocasts=True)


def _reduced(x: Tensor, weight: Tensor) -> list[int]:
    per_channel = weight.numel() > 1 and x.dim() > 1
    return [x.shape[i] if per_channel and i == 1 else 1 for i in range(x.dim())]


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """PReLU, recorded for autograd when it is wanted."""
    if (x.requires_grad or weight.requires_grad) and is_grad_enabled():
        return PReLU.apply(x, weight)
    return ops.prelu(x, weight)


class RReLU(Function):
    """y = x where x > 0, else noise * x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor) -> Tensor:
        ctx.save_for_backward(x, noise)
        return ops.rrelu(x, noise)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, noise = ctx.saved_tensors
        if recording(g) or watched(g):
            return torch.where(x > 0, g, g * noise), None
        return ops.rrelu_backward(g, x, noise), None


def rrelu(x: Tensor, noise: Tensor) -> Tensor:
    """Randomized leaky ReLU with the factors given, recorded for autograd when it is wanted."""
    return RReLU.apply(x, noise) if recording(x) else ops.rrelu(x, noise)


class Softmax(Function):
    """softmax, log_softmax or softmin along one dimension; the output is all that the gradient needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, kind: str) -> Tensor:
        y = ops.softmax(x, dim, kind)
        ctx.save_for_backward(y)
        ctx.spec = (dim, kind)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        dim, kind = ctx.spec
        return softmax_backward(g, y, dim, kind), None, None


class _SoftmaxById(Softmax):
    """`Softmax` with the kind's number for its name."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        dim, kind = ctx.spec
        return softmax_backward(g, ctx.saved_tensors[0], dim, list(ops.SOFTMAX_KINDS)[kind])


direct_softmax = direct(_C.softmax, _C.softmax_backward, _SoftmaxById, keeps_output=True, autocasts=True)


class SoftmaxBackward(Function):
    """gx = y (g - sum(g y)) for softmax, its negative for softmin, g - exp(y) sum(g) for log_softmax."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, dim: int, kind: str) -> Tensor:
        ctx.save_for_backward(g, y)
        ctx.spec = (dim, kind)
        return ops.softmax_backward(g, y, dim, kind)

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> tuple[Tensor | None, ...]:
        dim, kind = ctx.spec
        dtype = gg.dtype
        # several roundings lie between here and the result: in float32 at least
        gg, g, y = (t if dtype == torch.float64 else t.float() for t in (gg, *ctx.saved_tensors))
        if kind == "log_softmax":
            p = y.exp()
            dg = gg - (gg * p).sum(dim, keepdim=True)
            dy = -gg * p * g.sum(dim, keepdim=True)
        else:
            gg = -gg if kind == "softmin" else gg
            mean = (gg * y).sum(dim, keepdim=True)
            dg = y * (gg - mean)
            dy = gg * (g - (g * y).sum(dim, keepdim=True)) - g * mean
        return dg.to(dtype), dy.to(dtype), None, None


def _softmax_pulled(g: Tensor, y: Tensor, dim: int, kind: str) -> Tensor:
    dtype = y.dtype
    g, y = (t if dtype == torch.float64 else t.float() for t in (g, y))
    log = kind == "log_softmax"
    gx = g - y.exp() * g.sum(dim, keepdim=True) if log else y * (g - (g * y).sum(dim, keepdim=True))
    return (-gx if kind == "softmin" else gx).to(dtype)


def softmax_backward(g: Tensor, y: Tensor, dim: int, kind: str) -> Tensor:
    """Gradient of `softmax` from its output y, recorded when a second derivative is wanted."""
    if watched(g, y) and (reason := why_not_ours(g, y)) is not None:
        return to_torch(kind, reason, lambda: _softmax_pulled(g, y, dim, kind))
    if recording(g, y):
        return SoftmaxBackward.apply(g, y, dim, kind)
    return ops.softmax_backward(g, y, dim, kind)


def softmax(x: Tensor, dim: int, kind: str) -> Tensor:
    """The softmax family, recorded for autograd when it is wanted."""
    if x.requires_grad and is_grad_enabled():
        return Softmax.apply(x, dim, kind)
    return ops.softmax(x, dim, kind)
