"""What torch.autocast makes of an op's tensors, by the rule of the op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

_NARROW = (torch.float32, torch.float16, torch.bfloat16)  # float64 and integers stay as they are


_empty: dict[tuple[torch.device, int, torch.dtype], Tensor] = {}


def _cached(t: Tensor, dtype: torch.dtype) -> Tensor:
    """``t.to(dtype)``; of a weight, torch's own copy, which is kept to the end of autocast's block.

    torch hands its copies to its own ops alone. A product of no rows saves the one that it took.
    """
    if t.dtype != torch.float32 or not (t.requires_grad and t.is_leaf and t.dim() == 2) or t._is_view():
        return t.to(dtype)
    if is_dynamo_compiling() or torch.is_inference_mode_enabled() or not torch.is_autocast_cache_enabled():
        return t.to(dtype)
    key = t.device, t.shape[0], dtype
    rows = _empty.get(key)
    if rows is None:
        rows = _empty[key] = torch.empty(0, t.shape[0], device=t.device, dtype=dtype, requires_grad=True)
    with torch.enable_grad():
        return torch.mm(rows, t).grad_fn._saved_mat2


def _lower(tensors: list[Tensor], device: str) -> Callable[[Tensor], Tensor]:
    dtype = torch.get_autocast_dtype(device)
    return lambda t: _cached(t, dtype) if t.dtype in _NARROW else t


def _float32(tensors: list[Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """CUDA's autocast runs in float32 what sums exponentials or squares; the CPU's leaves it as it is."""
    return lambda t: t.float() if device == "cuda" and t.dtype in _NARROW else t


def _widest(tensors: list[Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """Nothing on the CPU, elsewhere the widest of the dtypes."""
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors))
    return lambda t: t if device == "cpu" else t.to(dtype)


RULES = {"lower": _lower, "float32": _float32, "widest": _widest}


def autocast(rule: str | None, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """The tensors (or None) as the rule has them where autocast is on for the device of the first."""
    given = [t for t in tensors if isinstance(t, Tensor)]
    if rule is None or not given or not torch._C._is_any_autocast_enabled():
        return tuple(tensors)
    device = given[0].device.type
    if not torch.is_autocast_enabled(device):
        return tuple(tensors)
    cast = RULES[rule](given, device)
    return tuple(cast(t) if isinstance(t, Tensor) else t for t in tensors)
