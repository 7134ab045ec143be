"""Interpolation as an op: each element of the result is a weighted sum of elements of the input, dim by dim.

``mode`` is what the kernels do in every dim: nearest, nearest-exact, linear, cubic, antialiased-linear or
antialiased-cubic. A scale counts outputs for each element; None: the sizes tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from ..core.op import op

_aten = torch.ops.aten
Ints = Sequence[int]
Scale = float | None


def _name(mode: str, dims: int) -> str:
    """What torch calls it."""
    if mode.startswith("nearest"):
        return f"{'_upsample_nearest_exact' if mode == 'nearest-exact' else 'upsample_nearest'}{dims}d"
    kind = {"linear": ("linear", "bilinear", "trilinear")[dims - 1], "cubic": "bicubic"}[mode.rpartition("-")[2]]
    return f"_upsample_{kind}2d_aa" if mode.startswith("antialiased") else f"upsample_{kind}{dims}d"


def _call(f: Any, t: Tensor, mode: str, sizes: Sequence[Any], align: bool, *scales: Any) -> Tensor:
    """torch's op, through float32 where it has no kernel for 16 bits."""
    corners = () if mode.startswith("nearest") else (align,)
    wide = t.float() if mode.startswith("antialiased") and t.dtype in (torch.float16, torch.bfloat16) else t
    return f(wide, *sizes, *corners, *scales).to(t.dtype)


def _by_torch(x: Tensor, mode: str, out: Ints, size: Ints, align: bool, *scales: Scale) -> Tensor:
    """By the overload that torch's own functions call, which is the one that its exporters know."""
    dims = len(out)
    scaled = scales[3 - dims :]
    f = getattr(_aten, _name(mode, dims)).vec
    if scaled[0] is None:
        return _call(f, x, mode, [out], align, None)
    return _call(f, x, mode, [None], align, scaled)


def _gradient_by_torch(g: Tensor, mode: str, out: Ints, size: Ints, align: bool, *scales: Scale) -> Tensor:
    dims = len(out)
    f = getattr(_aten, f"{_name(mode, dims)}_backward")
    return _call(f, g, mode, [out, [*g.shape[:2], *size]], align, *scales[3 - dims :])


def _new(t: Tensor, sizes: Ints, keeps: bool = True) -> Tensor:
    made = t.new_empty([*t.shape[:2], *sizes])
    last = suggest_memory_format(t) if keeps and t.dim() > 3 else torch.contiguous_format
    return made if last is torch.contiguous_format else made.to(memory_format=last)


def _new_gradient(g: Tensor, mode: str, out: Ints, size: Ints, *_: Any) -> Tensor:
    """torch leaves gradients of cubics and of the nearest elements in volumes contiguous."""
    return _new(g, size, not (mode.endswith("cubic") or (mode.startswith("nearest") and len(size) == 3)))


def _dims(y: Ints | None, x: Ints | None, *_: Any) -> tuple[list[Any], list[Any]]:
    """Batch and channels may be cut."""
    shape = x if x is not None else y
    names = [0, 1, *[None] * (len(shape or ()) - 2)]
    return [names], [names]


interpolate = op(
    "interpolate(Tensor input, str mode, int[] output_size, int[] input_size, bool align_corners,"
    " float? scale_d, float? scale_h, float? scale_w) -> Tensor y",
    fake=lambda x, mode, out, *_: _new(x, out),
    gradients=_new_gradient,
    formula=lambda g, *parameters: interpolate_gradient(g, *parameters),
    torch=_by_torch,
    dims=_dims,
)
# the gradient as an op of its own, whose gradient is interpolation
interpolate_gradient = op(
    "interpolate_gradient(Tensor g, str mode, int[] output_size, int[] input_size, bool align_corners,"
    " float? scale_d, float? scale_h, float? scale_w) -> Tensor gx",
    entry="interpolate_backward",
    backward="interpolate_gradient_backward",
    fake=_new_gradient,
    gradients=lambda g, mode, out, *_: _new(g, out),
    formula=lambda g, *parameters: interpolate(g, *parameters),
    torch=_gradient_by_torch,
    title="interpolate",
    dims=_dims,
)
