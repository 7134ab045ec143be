"""An activation by its name, as the argument of a fused form."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..ops.activation import ACTIVATIONS

Activation = str | tuple[Any, ...] | None


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
    defaults = tuple(ACTIVATIONS[name].parameters.values())
    if len(given) > len(defaults):
        raise ValueError(
            f"neurokern.{op}: activation {name!r} got {len(given)} parameters, expected at most {len(defaults)}"
        )
    p = (*(float(v) for v in given), *defaults[len(given) :], 0.0, 0.0)
    return name, p[0], p[1]
