"""Parameters as torch takes them: NumPy's numbers, tensors of one, and what is refused."""

from __future__ import annotations

import operator
from numbers import Complex, Real
from typing import Any

import torch
from torch import Tensor


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


def as_float(op: str, name: str, value: Any) -> float:
    """`number`, less its look at what is a float already."""
    return value if type(value) is float else number(op, name, value)


def as_parameter(op: str, name: str, kind: str, value: Any) -> Any:
    """The value as ``kind`` has it, its type in the schema.

    Raises:
        TypeError, RuntimeError, OverflowError: as `number` and `index`; TypeError for other types of the schema.
    """
    if kind.endswith("?"):
        if value is None:
            return None
        kind = kind[:-1]
    if kind in ("float", "Scalar"):
        return as_float(op, name, value)
    if kind == "int":
        return value if type(value) is int else index(op, name, value)
    if kind in ("bool", "str"):
        expected = bool if kind == "bool" else str
        if not isinstance(value, expected):
            raise TypeError(f"neurokern.{op}: argument {name} is {value!r}, expected a {kind}")
        return value
    if kind == "int[]":
        if not isinstance(value, tuple | list):
            raise TypeError(f"neurokern.{op}: argument {name} is {value!r}, expected a sequence of ints")
        return [v if type(v) is int else index(op, name, v) for v in value]
    return value


def symbolic_as_tensors(kinds: list[str], values: list[Any]) -> list[Any]:
    """Each Scalar as a tensor where torch.compile keeps one of them symbolic (see registry.register_symbolic)."""
    numbers = [v for kind, v in zip(kinds, values, strict=True) if kind == "Scalar"]
    # by its full name: who compiles has imported it, and it takes 0.3 s
    if all(torch.fx.experimental.symbolic_shapes.has_static_value(v) for v in numbers):
        return values
    one = torch.ones((), dtype=torch.float64)
    return [one * v if kind == "Scalar" else v for kind, v in zip(kinds, values, strict=True)]
