"""Elementwise activations, gated units, PReLU and the softmax family as registered ops.

Bodies call the kernels of the backend in force, which allocate the output where they are given None for it.
``act`` is a name of ``ACTIVATIONS``; ``p0`` and ``p1`` are its parameters in the order of torch's signature (see
``kernels/activation.h``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import _C
from .backends import fall_back, state
from .registry import is_compiling, register

ACTIVATIONS: dict[str, int] = dict(_C.ACTIVATIONS)
SOFTMAX_KINDS = {"softmax": 0, "log_softmax": 1, "softmin": 2}
PLAIN = frozenset((Tensor, torch.nn.Parameter))

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
# Derivatives of these take the output for x where p0 says FROM_OUTPUT; torch's own that do.
FROM_OUTPUT = 1.0
TORCH_FROM_OUTPUT: dict[str, Callable[..., Tensor]] = {
    "sigmoid": torch.ops.aten.sigmoid_backward,
    "tanh": torch.ops.aten.tanh_backward,
}


def real(x: Tensor) -> Tensor:
    """Kernels read memory as it lies: a lazily negated view is made real first."""
    return x.resolve_neg() if x.is_neg() else x


def _like(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


def _contiguous(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _like_second(_: Tensor, x: Tensor, *__: object) -> Tensor:
    return torch.empty_like(x)


def _like_third(_: Tensor, __: Tensor, x: Tensor, *___: object) -> Tensor:
    return torch.empty_like(x)


def _unary_fake(x: Tensor, act: str, *_: object) -> Tensor:
    return _contiguous(x) if act == "logsigmoid" else _like(x)


@register("unary(Tensor x, str act, float p0, float p1) -> Tensor", _unary_fake)
def unary_body(x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    return state.native.unary(None, x.resolve_neg() if x.is_neg() else x, ACTIVATIONS[act], p0, p1)


@register("unary_(Tensor(a!) x, str act, float p0, float p1) -> ()", lambda *_: None)
def unary_inplace_body(x: Tensor, act: str, p0: float, p1: float) -> None:
    if x.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"neurokern.{act}: argument input is an inference tensor, in place outside of inference mode"
        )
    if x.is_neg():
        x.copy_(unary_body(x, act, p0, p1))
        return
    state.native.unary(x, x, ACTIVATIONS[act], p0, p1)
    increment_version(x)  # so that autograd notices when something saved x


@register("unary_backward(Tensor g, Tensor x, str act, float p0, float p1) -> Tensor", _like_second)
def unary_backward_body(g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    return state.native.unary_backward(None, real(g), real(x), ACTIVATIONS[act], p0, p1)


@register("unary_backward2(Tensor gg, Tensor g, Tensor x, str act, float p0, float p1) -> Tensor", _like_third)
def unary_backward2_body(gg: Tensor, g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    return state.native.unary_backward2(None, real(gg), real(g), real(x), ACTIVATIONS[act], p0, p1)


def _halves_fake(x: Tensor, dim: int, *_: object) -> Tensor:
    return torch.empty_like(x.narrow(dim, 0, x.shape[dim] // 2))


@register("glu(Tensor x, int dim, str act, bool first) -> Tensor", _halves_fake)
def glu_body(x: Tensor, dim: int, act: str, first: bool) -> Tensor:
    """act(one half) * the other half of ``x`` along ``dim``; ``first``: the activation is on the first half."""
    return state.native.glu(real(x), dim, ACTIVATIONS[act], first)


@register(
    "glu_backward(Tensor g, Tensor x, int dim, str act, bool first) -> Tensor",
    lambda g, x, *_: torch.empty_like(x),
)
def glu_backward_body(g: Tensor, x: Tensor, dim: int, act: str, first: bool) -> Tensor:
    """Both halves' gradients, written into the halves of one tensor."""
    return state.native.glu_backward(real(g), real(x), dim, ACTIVATIONS[act], first)


def expand_weight(x: Tensor, weight: Tensor) -> Tensor:
    """A PReLU weight as a view of ``x``'s shape: along dimension 1, or one value for all."""
    shape, weights = x.shape, weight.numel()
    if len(shape) == 2 or len(shape) == weights == 1:  # the weight runs along the last dimension, if at all
        return weight.expand(shape)
    if weights == 1 or len(shape) < 2:
        return weight.reshape(()).expand(shape) if weights == 1 else weight.expand(shape)
    return weight.view([-1 if i == 1 else 1 for i in range(len(shape))]).expand(shape)


@register("prelu(Tensor x, Tensor weight) -> Tensor", _like)
def prelu_body(x: Tensor, weight: Tensor) -> Tensor:
    return state.native.prelu(None, real(x), real(weight))


@register(
    "prelu_backward(Tensor g, Tensor x, Tensor weight) -> (Tensor, Tensor)",
    lambda g, x, w: (torch.empty_like(x), torch.empty_like(w, memory_format=torch.contiguous_format)),
)
def prelu_backward_body(g: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    gx = torch.empty_like(x)
    gw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    state.native.prelu_backward(gx, gw, real(g), real(x), expand_weight(x, real(weight)))
    return gx, gw


# noise is one factor per element, 1 where x > 0 is passed through
@register("rrelu(Tensor x, Tensor noise) -> Tensor", _contiguous)
def rrelu_body(x: Tensor, noise: Tensor) -> Tensor:
    return state.native.rrelu(None, real(x), real(noise))


@register("rrelu_backward(Tensor g, Tensor x, Tensor noise) -> Tensor", _like_second)
def rrelu_backward_body(g: Tensor, x: Tensor, noise: Tensor) -> Tensor:
    gx = torch.empty_like(x)
    state.native.prelu_backward(gx, None, real(g), real(x), real(noise))
    return gx


@register("softmax(Tensor x, int dim, str kind) -> Tensor", _contiguous)
def softmax_body(x: Tensor, dim: int, kind: str) -> Tensor:
    return state.native.softmax(None, real(x), dim, SOFTMAX_KINDS[kind])


@register("softmax_backward(Tensor g, Tensor y, int dim, str kind) -> Tensor", _contiguous)
def softmax_backward_body(g: Tensor, y: Tensor, dim: int, kind: str) -> Tensor:
    return state.native.softmax_backward(None, real(g), real(y), dim, SOFTMAX_KINDS[kind])


_ops = torch.ops.neurokern


def unary(x: Tensor, act: str, p0: float = 0.0, p1: float = 0.0) -> Tensor:
    """act(x), elementwise; no gradient. Takes any strides; the output is laid out as torch's."""
    try:
        if type(x) in PLAIN and not is_compiling():  # unary_body, less a frame: this is the shortest call there is
            return state.native.unary(None, x.resolve_neg() if x.is_neg() else x, ACTIVATIONS[act], p0, p1)
        return _ops.unary(x, act, p0, p1)
    except (RuntimeError, NotImplementedError) as error:
        return fall_back(act, error, lambda: TORCH[act](x, p0, p1), x)


def unary_(x: Tensor, act: str, p0: float = 0.0, p1: float = 0.0) -> None:
    """x = act(x) in place; no gradient."""
    try:
        if type(x) in PLAIN and not is_compiling():
            unary_inplace_body(x, act, p0, p1)
        else:
            _ops.unary_(x, act, p0, p1)
    except (RuntimeError, NotImplementedError) as error:
        fall_back(act, error, lambda: TORCH[act](x, p0, p1, inplace=True), x)


def _direct(name: str, body: Callable, *tensors: object) -> Callable:
    """The body itself when not compiling and every tensor is a plain one; else the registered op."""
    for t in tensors:  # not all(...): a generator costs half a microsecond
        if type(t) not in PLAIN:
            return getattr(_ops, name)
    return getattr(_ops, name) if is_compiling() else body


def unary_backward(g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    """g * act'(x), with torch's derivative at ties."""
    if type(g) in PLAIN and type(x) in PLAIN and not is_compiling():
        return unary_backward_body(g, x, act, p0, p1)
    return _ops.unary_backward(g, x, act, p0, p1)


def unary_backward2(gg: Tensor, g: Tensor, x: Tensor, act: str, p0: float, p1: float) -> Tensor:
    """gg * g * act''(x): the gradient of ``sum(gg * unary_backward(g, x))`` with respect to x."""
    return _direct("unary_backward2", unary_backward2_body, gg, g, x)(gg, g, x, act, p0, p1)


def glu(x: Tensor, dim: int, act: str, first: bool) -> Tensor:
    """Gated unit over the two halves of ``x`` along ``dim``."""
    if type(x) in PLAIN and not is_compiling():
        return glu_body(x, dim, act, first)
    return _ops.glu(x, dim, act, first)


def glu_backward(g: Tensor, x: Tensor, dim: int, act: str, first: bool) -> Tensor:
    """Gradient of `glu` with respect to ``x``."""
    return _direct("glu_backward", glu_backward_body, g, x)(g, x, dim, act, first)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight * x; the weight runs along dimension 1 or is one value."""
    if type(x) in PLAIN and type(weight) in PLAIN and not is_compiling():
        return prelu_body(x, weight)
    return _ops.prelu(x, weight)


def prelu_backward(g: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `prelu` with respect to x and weight."""
    return _direct("prelu_backward", prelu_backward_body, g, x, weight)(g, x, weight)


def rrelu(x: Tensor, noise: Tensor) -> Tensor:
    """x where x > 0, else noise * x, with a factor for each element."""
    return _direct("rrelu", rrelu_body, x, noise)(x, noise)


def rrelu_backward(g: Tensor, x: Tensor, noise: Tensor) -> Tensor:
    """Gradient of `rrelu` with respect to x."""
    return _direct("rrelu_backward", rrelu_backward_body, g, x, noise)(g, x, noise)


def softmax(x: Tensor, dim: int, kind: str) -> Tensor:
    """softmax, log_softmax or softmin of ``x`` along ``dim``."""
    if type(x) in PLAIN and not is_compiling():
        return softmax_body(x, dim, kind)
    return _ops.softmax(x, dim, kind)


def softmax_backward(g: Tensor, y: Tensor, dim: int, kind: str) -> Tensor:
    """Gradient of `softmax` from its output ``y``."""
    return _direct("softmax_backward", softmax_backward_body, g, y)(g, y, dim, kind)
