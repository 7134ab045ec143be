"""What torch.autocast makes of an op's tensors, by the rule of the op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ..backends.fall_back import why_watched
from .tensors import PLAIN, is_compiling

_NARROW = (torch.float32, torch.float16, torch.bfloat16)  # float64 and integers stay as they are


_empty: dict[tuple[torch.device, int, torch.dtype], Tensor] = {}


def _cached(t: Tensor, dtype: torch.dtype) -> Tensor:
    """``t.to(dtype)``; of a weight, torch's own copy, which is kept to the end of autocast's block.

    torch hands its copies to its own ops alone. A product of no rows saves the one that it took.
    """
    if not _is_kept(t) or not _is_alone(t):
        return t.to(dtype)
    key = t.device, t.shape[0], dtype
    rows = _empty.get(key)
    if rows is None:
        rows = _empty[key] = torch.empty(0, t.shape[0], device=t.device, dtype=dtype, requires_grad=True)
    with torch.enable_grad():
        return torch.mm(rows, t).grad_fn._saved_mat2


def _is_kept(t: Tensor) -> bool:
    """Whether it is a weight as torch keeps the copies of, and one that a product takes."""
    if is_compiling() or t.dtype != torch.float32 or t.dim() != 2 or not torch.is_autocast_cache_enabled():
        return False
    return type(t) in PLAIN and t.requires_grad and t.is_leaf and not t._is_view()


def _is_alone(t: Tensor) -> bool:
    """Whether nobody sees the product, or what it saves: it is no part of the model."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is None and not torch.is_inference_mode_enabled() and why_watched(t) is None


def _lower(tensors: list[Tensor], device: str) -> Callable[[Tensor], Tensor]:
    dtype = torch.get_autocast_dtype(device)
    return lambda t: _cached(t, dtype) if t.dtype in _NARROW else t


def _float32(tensors: list[Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """CUDA's autocast runs in float32 what sums exponentials or squares; the CPU's leaves it as it is."""
    return lambda t: t.float() if device == "cuda" and t.dtype in _NARROW else t


def _float32_on_cpu(tensors: list[Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """Pools that the CPU's autocast runs in float32; CUDA's leaves them as they are."""
    return lambda t: t.float() if device == "cpu" and t.dtype in _NARROW else t


def _widest(tensors: list[Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """Nothing on the CPU, elsewhere the widest of the dtypes."""
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors))
    return lambda t: t if device == "cpu" else t.to(dtype)


def _float32_or_widest(tensors: list[Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """float32 on the CPU, elsewhere the widest of the dtypes."""
    return (_float32_on_cpu if device == "cpu" else _widest)(tensors, device)


RULES = {
    "lower": _lower,
    "float32": _float32,
    "float32_on_cpu": _float32_on_cpu,
    "float32_or_widest": _float32_or_widest,
    "widest": _widest,
}


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
