"""Elementwise activations, gated units and PReLU as ops.

``act`` is a name of `ACTIVATIONS`; ``p0`` and ``p1`` are its parameters in the order of torch's signature.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.compiler import is_dynamo_compiling
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from .. import _C
from ..backends.fall_back import to_torch, why_not_ours
from ..core.dims import of, whole
from ..core.kept import Copied
from ..core.op import OPS, op, refuse_in_place
from ..core.subclass import not_plain
from ..core.tensors import PLAIN, above_autograd, recording


class Activation(NamedTuple):
    """A row of the table of kernels/activation.h: its id, torch's parameters with their defaults, what tells f'."""

    id: int
    parameters: dict[str, float]
    from_output: bool


def _row(number: int, parameters: str, from_output: bool) -> Activation:
    given = (p.split("=") for p in parameters.split())
    return Activation(number, {name: float(value) for name, value in given}, from_output)


ACTIVATIONS: dict[str, Activation] = {name: _row(*row) for name, row in _C.ACTIVATIONS.items()}

_F = torch.nn.functional
# torch's own function for what has no kernel of ours (integer, complex, nested, other devices); i: {"inplace": True}
TORCH: dict[str, Callable[..., Tensor]] = {
    "identity": lambda x, a, b: x,
    "relu": lambda x, a, b, **i: _F.relu(x, **i),
    "relu6": lambda x, a, b, **i: _F.relu6(x, **i),
    "leaky_relu": lambda x, a, b, **i: _F.leaky_relu(x, a, **i),
    "elu": lambda x, a, b, **i: _F.elu(x, a, **i),
    "selu": lambda x, a, b, **i: _F.selu(x, **i),
    "celu": lambda x, a, b, **i: _F.celu(x, a, **i),
    "gelu": lambda x, a, b: _F.gelu(x),
    "gelu_tanh": lambda x, a, b: _F.gelu(x, approximate="tanh"),
    "silu": lambda x, a, b, **i: _F.silu(x, **i),
    "mish": lambda x, a, b, **i: _F.mish(x, **i),
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "logsigmoid": lambda x, a, b: _F.logsigmoid(x),
    "hardsigmoid": lambda x, a, b, **i: _F.hardsigmoid(x, **i),
    "hardswish": lambda x, a, b, **i: _F.hardswish(x, **i),
    "hardtanh": lambda x, a, b, **i: _F.hardtanh(x, a, b, **i),
    "hardshrink": lambda x, a, b: _F.hardshrink(x, a),
    "softshrink": lambda x, a, b: _F.softshrink(x, a),
    "tanhshrink": lambda x, a, b: _F.tanhshrink(x),
    "softsign": lambda x, a, b: _F.softsign(x),
    "softplus": lambda x, a, b: _F.softplus(x, a, b),
    "threshold": lambda x, a, b, **i: _F.threshold(x, a, b, **i),
    "tanh": lambda x, a, b: torch.tanh(x),
    "squared_relu": lambda x, a, b, **i: _F.relu(x, **i).square_() if i else torch.relu(x).square(),
}
# f' as torch has it of the output; that of relu and leaky_relu is the one of the input
TORCH_FROM_OUTPUT: dict[str, Callable[..., Tensor]] = {
    "relu": lambda g, y, a, b: torch.ops.aten.threshold_backward(g, y, 0),
    "leaky_relu": lambda g, y, a, b: torch.ops.aten.leaky_relu_backward(g, y, a, True),
    "sigmoid": lambda g, y, a, b: torch.ops.aten.sigmoid_backward(g, y),
    "tanh": lambda g, y, a, b: torch.ops.aten.tanh_backward(g, y),
}


def _by_torch(x: Tensor, act: str, p0: float, p1: float, **inplace: bool) -> Tensor:
    return TORCH[act](x, p0, p1, **inplace)


def _fake(x: Tensor, act: str, *_: object) -> Tensor:
    layout = torch.contiguous_format if act == "logsigmoid" else torch.preserve_format
    return torch.empty_like(x, memory_format=layout)


def _like_second(_: Tensor, x: Tensor, *__: object) -> Tensor:
    return torch.empty_like(x)


# ---- derivatives of any order: kernels make the first two, torch's formulas those beyond ----


def _vjp(f: Callable[..., Tensor], g: Tensor, *x: Tensor) -> tuple[Tensor, ...]:
    """The gradients of f at x by torch.func, which refuses the user's saved-tensor hooks: they rest meanwhile."""
    hooks = None if is_dynamo_compiling() else torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is None:
        watched = not is_dynamo_compiling() and is_in_torch_dispatch_mode(include_infra_modes=True)
        if watched and not torch._C._are_functorch_transforms_active():
            return _vjp_by_autograd(f, g, *x)
        return torch.func.vjp(f, *x)[1](g)
    torch._C._autograd._pop_saved_tensors_default_hooks()
    try:
        return _vjp(f, g, *x)  # they nest
    finally:
        torch._C._autograd._push_saved_tensors_default_hooks(*hooks)


def _vjp_by_autograd(f: Callable[..., Tensor], g: Tensor, *x: Tensor) -> tuple[Tensor, ...]:
    """Where a dispatch mode looks on (a decomposition runs in one), which knows no tensors of torch.func's."""
    below = torch._C._dispatch_tls_is_dispatch_key_excluded(torch._C.DispatchKey.AutogradFunctionality)
    create_graph = torch.is_grad_enabled() and not below
    with above_autograd(), torch.enable_grad():
        x = tuple(t if t.requires_grad else t.detach().requires_grad_() for t in x)
        return torch.autograd.grad(f(*x), x, g, create_graph=create_graph)


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In float32 at least: several roundings of 16 bits lie within a formula."""
    return tuple(t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors)


def _gradient_by_torch(g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    return _vjp(lambda t: TORCH[act](t, p0, p1), g, x)[0]


def _from_output_by_torch(g: Tensor, y: Tensor, act: str, p0: float, p1: float) -> Tensor:
    return TORCH_FROM_OUTPUT[act](g, y, p0, p1)


def _second(first: Callable[..., Tensor], by_torch: Callable[..., Tensor]) -> Callable[..., Any]:
    """The gradients of a first derivative to g and x, whose own are torch's."""

    def gradients(
        gg: Tensor, g: Tensor, x: Tensor, act: str, p0: float, p1: float, wants: list[bool]
    ) -> tuple[Tensor | None, ...]:
        dg = first(gg, x, act, p0, p1) if wants[0] else None
        if not wants[1]:
            return dg, None
        ggw, gw, xw = _wide(gg, g, x)
        (dx,) = _vjp(lambda t: by_torch(gw, t, act, p0, p1), ggw, xw)
        return dg, dx.to(x.dtype)

    return gradients


unary_gradient = op(
    "unary_gradient(Tensor g, Tensor input, str act, Scalar p0, Scalar p1) -> Tensor",
    entry="unary_backward",
    fake=_like_second,
    saves="g input",
    backward="unary_backward2",
    formula=lambda *args: _second(unary_gradient, _gradient_by_torch)(*args),
    torch=_gradient_by_torch,
    label="act",
)
unary_from_output_gradient = op(
    "unary_from_output_gradient(Tensor g, Tensor y, str act, Scalar p0, Scalar p1) -> Tensor",
    entry="unary_from_output_backward",
    fake=_like_second,
    saves="g y",
    backward="unary_from_output_backward2",
    formula=lambda *args: _second(unary_from_output_gradient, _from_output_by_torch)(*args),
    torch=_from_output_by_torch,
    label="act",
)

# ---- the activations themselves ----


def _parameters(x: Tensor, act: str, *_: object) -> dict[str, str]:
    """torch's names of p0 and p1."""
    return dict(zip(("p0", "p1"), ACTIVATIONS[act].parameters, strict=False))


_UNARY = {"fake": _fake, "torch": _by_torch, "label": "act", "parameters": _parameters}

unary = op(
    "unary(Tensor input, str act, Scalar p0, Scalar p1) -> Tensor y",
    saves="input",
    formula=unary_gradient,
    keeps=True,  # one bit of each element, where that is all that the derivative needs
    **_UNARY,
)
# CUDA's autocast runs it in float32
softplus = op(
    "softplus(Tensor input, str act, Scalar p0, Scalar p1) -> Tensor y",
    entry="unary",
    saves="input",
    formula=unary_gradient,
    keeps=True,
    autocast="float32",
    **_UNARY,
)
# as torch, these keep their output: the input may be written to before the gradient is wanted
unary_from_output = op(
    "unary_from_output(Tensor input, str act, Scalar p0, Scalar p1) -> Tensor y",
    saves="y",
    gradients=_like_second,
    formula=unary_from_output_gradient,
    keeps=True,
    **_UNARY,
)


def _in_place_by_torch(x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    return TORCH[act](x, p0, p1, inplace=True)


def _from_output_in_place(x: Tensor, act: str, p0: float, p1: float) -> Any:
    if is_dynamo_compiling() and recording(x):
        return x.copy_(unary_from_output(x, act, p0, p1))
    return x, act, p0, p1


_IN_PLACE = {**_UNARY, "entry": "unary_", "fake": lambda *_: None, "torch": _in_place_by_torch}

unary_from_output_ = op(
    "unary_from_output_(Tensor(a!) input, str act, Scalar p0, Scalar p1) -> ()",
    saves="input",
    backward="unary_from_output_backward",
    formula=unary_from_output_gradient,
    prepare=_from_output_in_place,
    **_IN_PLACE,
)


def _autograd_is_compiled() -> bool:
    module = sys.modules.get("torch._dynamo.compiled_autograd")  # to import it takes seconds
    return module is not None and module.in_compiled_autograd_region


class UnaryInplace(Function):
    """x = act(x) in place; saves ``before``, a recorded copy of the input.

    The gradient goes to the copy: a second derivative finds the input by it, which x holds no more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, act: str, p0: float, p1: float) -> Tensor:
        OPS["unary_"].write(x, act, p0, p1)
        ctx.mark_dirty(x)
        ctx.save_for_backward(before)
        ctx.spec = (act, p0, p1)
        ctx.in_part = x._is_view()
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        gx = unary_gradient(g, x, *ctx.spec)
        # of a view, autograd takes None for the gradient of all that it is a part of; compiled, it adds the None
        return torch.zeros_like(g) if ctx.in_part or _autograd_is_compiled() else None, gx, None, None, None


def _recorded_in_place(x: Tensor, act: str, p0: float, p1: float) -> Any:
    if not recording(x):
        return x, act, p0, p1
    if is_dynamo_compiling():
        return x.copy_(unary(Copied.apply(x), act, p0, p1))
    return UnaryInplace.apply(x, x.clone(), act, p0, p1)


unary_ = op("unary_(Tensor(a!) input, str act, Scalar p0, Scalar p1) -> ()", prepare=_recorded_in_place, **_IN_PLACE)

# ---- gated units ----

GATED = {
    "glu": ("sigmoid", False),
    "swiglu": ("silu", True),
    "geglu": ("gelu", True),
    "geglu_tanh": ("gelu_tanh", True),
    "reglu": ("relu", True),
}


def _halves(x: Tensor, dim: int, first: bool) -> tuple[Tensor, Tensor]:
    """What the activation is on, and what it gates."""
    a, b = x.chunk(2, dim)
    return (a, b) if first else (b, a)


def _glu_by_torch(x: Tensor, dim: int, kind: str) -> Tensor:
    if kind == "glu":
        return _F.glu(x, dim)
    act, first = GATED[kind]
    a, b = _halves(x, dim, first)
    return TORCH[act](a, 0.0, 0.0) * b


def _glu_gradient(g: Tensor, x: Tensor, dim: int, kind: str) -> Tensor:
    act, first = GATED[kind]
    gw, xw = _wide(g, x)
    a, b = _halves(xw, dim, first)
    ga, gb = unary_gradient(gw * b, a, act, 0.0, 0.0), gw * unary(a, act, 0.0, 0.0)
    return torch.cat((ga, gb) if first else (gb, ga), dim).to(x.dtype)


glu = op(
    "glu(Tensor input, int dim, str kind) -> Tensor",
    fake=lambda x, dim, kind: torch.empty_like(x.narrow(dim, 0, x.shape[dim] // 2)),
    saves="input",
    formula=_glu_gradient,
    torch=_glu_by_torch,
    label="kind",
    dims=lambda y, x, dim, kind: ([names := whole(of(x, y), dim)], [names]),
)

# ---- PReLU ----


def _per_channel(x: Tensor, weight: Tensor) -> Tensor:
    """A weight so that it broadcasts to ``x``: along dimension 1, or one value for all."""
    if weight.numel() == 1 or x.dim() < 2:
        return weight.reshape([1] * x.dim())
    return weight.view([-1 if i == 1 else 1 for i in range(x.dim())])


def _prelu_gradient(g: Tensor, x: Tensor, weight: Tensor, wants: list[bool]) -> tuple[Tensor | None, ...]:
    # piecewise linear: the mask is a constant of the second derivative
    gw, xw, ww = _wide(g, x, weight)
    w = _per_channel(xw, ww)
    positive = x > 0
    gx = torch.where(positive, gw, gw * w).to(x.dtype) if wants[0] else None
    if not wants[1]:
        return gx, None
    sums = torch.where(positive, torch.zeros_like(xw), gw * xw).sum_to_size(w.shape)
    return gx, sums.reshape(weight.shape).to(weight.dtype)


prelu = op(
    "prelu(Tensor input, Tensor weight) -> Tensor",
    fake=lambda x, w: torch.empty_like(x),
    saves="input weight",
    gradients=lambda g, x, w, wants: (
        torch.empty_like(x),
        torch.empty_like(w, memory_format=torch.contiguous_format) if wants[1] else None,
    ),
    formula=_prelu_gradient,
    torch=torch.prelu,
    autocast="lower",
    dims=lambda y, x, weight, *_: ([names := of(x), names[1:2] if weight.numel() > 1 else [None]], [names]),
)
# noise is one factor per element, 1 where x > 0 is passed through
rrelu = op(
    "rrelu(Tensor input, Tensor noise) -> Tensor",
    fake=lambda x, noise: torch.empty_like(x, memory_format=torch.contiguous_format),
    saves="input noise",
    gradients=lambda g, x, noise, wants: (torch.empty_like(x), None),
    formula=lambda g, x, noise, wants: (torch.where(x > 0, g, g * noise), None),
    torch=lambda x, noise: torch.where(x > 0, x, x * noise),
    constants="noise",
)


def rrelu_between(input: Tensor, lower: float, upper: float, training: bool, inplace: bool) -> Tensor:
    """`rrelu` with factors drawn from U(lower, upper), one for each element; their mean where not in training."""

    def by_torch() -> Tensor:
        return _F.rrelu(input, lower, upper, training, inplace)

    if type(input) not in PLAIN:
        ours = partial(rrelu_between, input, lower, upper, training, inplace)
        other = not_plain("rrelu", [("input", input, False)], by_torch, ours)
        if other is not NotImplemented:
            return other
    if not training:
        slope = (lower + upper) / 2
        in_place = unary_from_output_ if slope > 0 else unary_
        return (in_place if inplace else unary)(input, "leaky_relu", slope, 0.0)
    if (reason := why_not_ours("rrelu", input)) is not None:
        return to_torch("rrelu", reason, by_torch)
    noise = torch.empty_like(input, requires_grad=False).uniform_(lower, upper)
    if not inplace:
        return rrelu(input, noise)
    refuse_in_place("rrelu", input)
    return input.copy_(rrelu(input.clone(), noise))  # the gradient needs the input that is overwritten
