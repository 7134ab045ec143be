"""What the public functions share: who is a tensor, autocast, names of activations for fused forms."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache, partial
from numbers import Complex, Real
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.fx import Proxy
from torch.overrides import handle_torch_function

from ..ops.activation import ACTIVATIONS, PLAIN
from ..ops.backends import to_torch
from ._subclass import overrides_nothing, upon_plain

IDENTITY = ("identity", 0, 0)  # ints: of floats that have a place, torch.compile(dynamic=True) makes variables
Activation = str | tuple[Any, ...] | None


def _defaults(name: str) -> tuple[float, ...]:
    """torch's defaults of the parameters p0, p1; literals have no place."""
    return {
        "leaky_relu": (0.01,),
        "elu": (1.0,),
        "celu": (1.0,),
        "hardtanh": (-1.0, 1.0),
        "hardshrink": (0.5,),
        "softshrink": (0.5,),
        "softplus": (1.0, 20.0),
        "threshold": (0.0, 0.0),
    }.get(name, ())


@lru_cache(256)  # every call of a fused layer asks
def parse_activation(op: str, activation: Activation) -> tuple[str, float, float]:
    """``None``, a name, or (name, parameters...) -> (name, p0, p1).

    Raises:
        ValueError: no activation has that name, or it takes fewer parameters.
    """
    if activation is None:
        return "identity", 0.0, 0.0
    name, *given = (activation,) if isinstance(activation, str) else activation
    if name not in ACTIVATIONS:
        raise ValueError(f"neurokern.{op}: activation is {name!r}, expected None or one of {', '.join(ACTIVATIONS)}")
    defaults = _defaults(name)
    if len(given) > len(defaults):
        raise ValueError(
            f"neurokern.{op}: activation {name!r} got {len(given)} parameters, expected at most {len(defaults)}"
        )
    p = (*(float(v) for v in given), *defaults[len(given) :], 0.0, 0.0)
    return name, p[0], p[1]


def agree(op: str, first: tuple[str, Tensor], *others: tuple[str, Tensor | None]) -> None:
    """All tensors have the dtype and device of the first, or a RuntimeError."""
    name, like = first
    for other, t in others:
        if t is not None and (t.dtype != like.dtype or t.device != like.device):
            raise RuntimeError(
                f"neurokern.{op}: argument {other} of shape {list(t.shape)} is {t.dtype} on {t.device}, "
                f"expected {like.dtype} on {like.device} as argument {name}"
            )


# how torch calls p0 and p1
PARAMETERS: dict[str, tuple[str, ...]] = {
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
    "celu": ("alpha",),
    "hardtanh": ("min_val", "max_val"),
    "hardshrink": ("lambd",),
    "softshrink": ("lambd",),
    "softplus": ("beta", "threshold"),
    "threshold": ("threshold", "value"),
}


def number(op: str, name: str, value: Any) -> float:
    """A float of what torch takes for a number: also NumPy's, and a tensor of no dimensions and no gradient.

    Raises:
        TypeError: no number.
        RuntimeError: a complex one.
        OverflowError: too large.
    """
    given = value
    if isinstance(value, Tensor) and value.dim() == 0 and not value.requires_grad:
        value = value.item()
    if isinstance(value, Complex) and not isinstance(value, Real):
        raise RuntimeError(f"neurokern.{op}: argument {name} is {given}, expected a real number")
    if not isinstance(value, Real):
        what = "a Tensor that requires grad or has dimensions" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"neurokern.{op}: argument {name} is {what}, expected a number")
    try:
        return float(value)
    except OverflowError:
        raise OverflowError(f"neurokern.{op}: argument {name} is an integer too large for a float") from None


def index(op: str, name: str, value: Any) -> int:
    """An int of what torch takes for one: also NumPy's, and a tensor of one.

    Raises:
        TypeError: no integer.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"neurokern.{op}: argument {name} is {value!r}, expected an int") from None


_OPTIONAL = ("bias", "residual")


def _overrides(a: Any) -> bool:
    """Whether a has a class that knows torch's functions or ops by themselves, and none of ours."""
    kind = type(a)
    if kind in PLAIN or kind.__module__.startswith("torch._subclasses"):  # tracers know registered ops
        return False
    if not issubclass(kind, Tensor):
        return hasattr(kind, "__torch_function__")
    function = getattr(kind.__torch_function__, "__func__", kind.__torch_function__)
    known = (Tensor.__torch_function__.__func__, torch._C._disabled_torch_function_impl)
    return function not in known or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__


def not_plain(op: str, arguments: tuple[tuple[str, Any], ...], by_torch: Callable[[], Any], ours: partial[Any]) -> Any:
    """For arguments that are no plain tensors: torch's own function where a class overrides it, else a TypeError.

    Returns NotImplemented when all are tensors after all, and the op can go on. ``ours`` is the whole call, which
    torch.fx records.
    """
    for _, a in arguments:
        if isinstance(a, Proxy):
            return handle_torch_function(ours.func, (a,), *ours.args, **ours.keywords)
        if _overrides(a):
            return to_torch(op, f"{type(a).__name__} overrides what torch's ops do", by_torch)
    for name, a in arguments:
        if not (isinstance(a, Tensor) or (a is None and name in _OPTIONAL)):
            raise TypeError(f"neurokern.{op}: argument {name} is a {type(a).__name__}, expected a torch.Tensor")
    named = not is_dynamo_compiling() and any(overrides_nothing(type(a)) for _, a in arguments)
    return upon_plain(ours) if named else NotImplemented


any_autocast = torch._C._is_any_autocast_enabled


def autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors in autocast's dtype where it is on for their device (float64 and integers stay as they are)."""
    if not any_autocast():
        return tensors
    device = next(t.device.type for t in tensors if t is not None)
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    narrow = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(t.to(dtype) if t is not None and t.dtype in narrow else t for t in tensors)


def wide_in_autocast(input: Any) -> Any:
    """In float32 under CUDA's autocast, which runs there what sums exponentials (the CPU's leaves it as it is)."""
    if isinstance(input, Tensor) and input.is_cuda and input.dtype in (torch.float16, torch.bfloat16):
        return input.float() if torch.is_autocast_enabled("cuda") else input
    return input
