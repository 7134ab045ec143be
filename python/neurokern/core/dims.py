"""The names of an op's dims: what entries say of how their tensors may be cut (`core.sharding` reads it)."""

from __future__ import annotations

from typing import Any

Names = list[Any]  # one for each dim; None: it stays whole


def of(*shapes: Any) -> Names:
    """Names of the dims of the first of the shapes that is there."""
    return list(range(len(next(s for s in shapes if s is not None))))


def whole(names: Names, dim: int) -> Names:
    """The names less that of a dim."""
    dim %= max(len(names), 1)
    return [None if i == dim else n for i, n in enumerate(names)]


def elementwise(y: Any, x: Any, *rest: Any) -> tuple[list[Names], list[Names]]:
    """All tensors have the dims of the first."""
    return [of(x, y)] * 4, [of(x, y)]
