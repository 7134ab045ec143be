"""An activation by its name, as the argument of a fused form."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ..core.parameters import as_float
from ..ops.activation import ACTIVATIONS

Activation = str | tuple[Any, ...] | None

# no cache of functions: torch.compile looks into none, and warns of it
_BY_NAME: dict[str | None, tuple[str, float, float]] = {
    name: (name, *(*row.parameters.values(), 0.0, 0.0)[:2]) for name, row in ACTIVATIONS.items()
}
_BY_NAME[None] = _BY_NAME["identity"]


def parse_activation(op: str, activation: Activation) -> tuple[str, float, float]:
    """``None``, a name, or (name, parameters...) -> (name, p0, p1).

    Raises:
        TypeError: activation is something else, as a function or a module; a parameter is no number.
        ValueError: no activation has that name, or it takes fewer parameters.
    """
    if activation is None or isinstance(activation, str):
        if activation in _BY_NAME:
            return _BY_NAME[activation]
        raise ValueError(_unknown(op, activation))
    if not isinstance(activation, tuple) or not activation or not isinstance(activation[0], str):
        raise TypeError(_no_name(op, activation))
    name, given = activation[0], activation[1:]
    if name not in ACTIVATIONS:
        raise ValueError(_unknown(op, name))
    parameters = ACTIVATIONS[name].parameters
    if len(given) > len(parameters):
        raise ValueError(
            f"neurokern.{op}: activation {name!r} got {len(given)} parameters, expected at most {len(parameters)}"
        )
    numbers = [as_float(op, p, v) for p, v in zip(parameters, given, strict=False)]
    p = (*numbers, *list(parameters.values())[len(given) :], 0.0, 0.0)
    return name, p[0], p[1]


def is_name(activation: Any) -> bool:
    """Whether a fused form would take it, though it was passed for something else."""
    name = activation[0] if isinstance(activation, tuple) and activation else activation
    return isinstance(name, str) and name in ACTIVATIONS


def _unknown(op: str, name: str) -> str:
    return f"neurokern.{op}: activation is {name!r}, expected None or one of {', '.join(ACTIVATIONS)}"


def _no_name(op: str, activation: Any) -> str:
    text = f"neurokern.{op}: argument activation is {activation!r}, expected a name, (name, parameters...) or None"
    known = name_of(activation)
    return text if known is None else f"{text}; pass {known!r}"


def name_of(activation: Any) -> Activation:
    """The name, with its parameters where they are not the defaults, of a function, a module or a module's class."""
    keywords: dict[str, Any] = {}
    if isinstance(activation, list):
        return tuple(activation) if activation and activation[0] in ACTIVATIONS else None
    if isinstance(activation, partial):
        activation, keywords = activation.func, activation.keywords
    called = type(activation).__name__ if isinstance(activation, torch.nn.Module) else activation
    called = str(getattr(called, "__name__", called)).lower().replace("_", "")
    name = next((n for n in ACTIVATIONS if n.replace("_", "") == called), None)
    if name is None or not callable(activation):
        return None
    if name == "gelu" and keywords.get("approximate", getattr(activation, "approximate", None)) == "tanh":
        return "gelu_tanh"
    defaults = ACTIVATIONS[name].parameters
    given = tuple(keywords.get(p, getattr(activation, p, v)) for p, v in defaults.items())
    return name if given == tuple(defaults.values()) else (name, *given)
