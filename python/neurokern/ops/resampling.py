"""Interpolation and samples at points of a grid as ops: weighted sums of elements of the input, dim by dim.

``mode`` is what the kernels do in every dim: nearest, nearest-exact, linear, cubic, antialiased-linear or
antialiased-cubic. A scale counts outputs for each element; None: the sizes tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple

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


# ---- samples at the points of a grid ----

MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")


def _sampler(mode: str, padding: str, align: bool) -> tuple[int, int, bool]:
    return MODES.index(mode), PADDINGS.index(padding), align


def _sample_by_torch(x: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    return torch.grid_sampler(x, grid, *_sampler(mode, padding, align))


def _sample_gradient_by_torch(g: Tensor, grid: Tensor, mode: str, padding: str, align: bool, size: Ints) -> Tensor:
    f = getattr(_aten, f"grid_sampler_{len(size)}d_backward")
    x = g.new_zeros([*g.shape[:2], *size])
    return f(g, x, grid, *_sampler(mode, padding, align), [True, False])[0]


def _new_samples(x: Tensor, grid: Tensor, *_: Any) -> Tensor:
    return x.new_empty([*x.shape[:2], *grid.shape[1:-1]])


def _new_if(wants: Sequence[bool], *like: Tensor) -> tuple[Tensor | None, ...]:
    return tuple(t.new_empty(t.shape) if w else None for t, w in zip(like, wants, strict=True))


def _wide(t: Tensor) -> Tensor:
    """In float32 at least: several roundings of 16 bits lie within a formula."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


class _Taps(NamedTuple):
    """What points are made of in one dim: elements (as floats), their weights, and how these change with the grid."""

    index: list[Tensor]
    weight: list[Tensor]
    slope: list[Tensor]


def _reflected(at: Tensor, size: int, align: bool) -> tuple[Tensor, Tensor]:
    """Mirrored, and the sign of the slope there."""
    low, span = (0.0, size - 1) if align else (-0.5, size)
    if span == 0:
        return at * 0, torch.zeros_like(at)
    away = (at - low).abs()
    extra = away - (away / (2 * span)).detach().trunc() * (2 * span)
    back = extra > 2 * span - extra
    sign = torch.where(back ^ (at < low), -1.0, 1.0).to(at.dtype)
    return torch.where(back, 2 * span - extra, extra) + low, sign


def _clamped(at: Tensor, size: int, dims: int) -> tuple[Tensor, Tensor]:
    """Within the image, and where it was before."""
    inside = (at > 0) & (at < size - 1)
    still = at.detach().clamp(0, size - 1)
    return torch.where(inside, at, still.nan_to_num(0.0) if dims == 2 else still), inside.to(at.dtype)


def _padded(at: Tensor, size: int, padding: str, align: bool, dims: int) -> tuple[Tensor, Tensor]:
    slope = torch.ones_like(at)
    if padding == "zeros":
        return at, slope
    if padding == "reflection":
        at, slope = _reflected(at, size, align)
    at, inside = _clamped(at, size, dims)
    return at, slope * inside


def _near(x: Tensor, a: float) -> tuple[Tensor, Tensor]:
    return ((a + 2) * x - (a + 3)) * x * x + 1, (3 * (a + 2) * x - 2 * (a + 3)) * x


def _far(x: Tensor, a: float) -> tuple[Tensor, Tensor]:
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a, (3 * a * x - 10 * a) * x + 8 * a


def _taps(x: Tensor, size: int, mode: str, padding: str, align: bool, dims: int) -> _Taps:
    scale = (size - 1 if align else size) / 2
    at = (x + 1) * scale if align else (x + 1) * scale - 0.5
    if mode == "bilinear":
        at, slope = _padded(at, size, padding, align, dims)
        first = at.detach().floor()
        t = at - first
        weight = [1 - t, t]
        if dims == 3:
            weight = [torch.where(t.isnan(), 0.0, w) for w in weight]
        return _Taps([first, first + 1], weight, [-slope * scale, slope * scale])
    first = at.detach().floor()
    t = at - first
    each = [_far(t + 1, -0.75), _near(t, -0.75), _near(1 - t, -0.75), _far(2 - t, -0.75)]
    index = [_padded(first + k, size, padding, align, dims)[0].detach().trunc() for k in (-1, 0, 1, 2)]
    signs = (1, 1, -1, -1)
    return _Taps(index, [w for w, _ in each], [s * b * scale for s, (_, b) in zip(signs, each, strict=True)])


def _grid_gradient(g: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    """The gradient of the samples to the grid."""
    if mode == "nearest":
        return torch.zeros_like(grid)
    sizes = x.shape[2:]
    dims = len(sizes)
    flat, gw = _wide(x).flatten(2), _wide(g).flatten(2)
    points = _wide(grid).flatten(1, -2)
    # of D, H, W, whose coordinates come in the other order
    taps = [_taps(points[..., dims - 1 - k], size, mode, padding, align, dims) for k, size in enumerate(sizes)]
    made: list[Tensor | None] = [None] * dims
    for which in product(range(len(taps[0].index)), repeat=dims):
        place = there = None
        for axis, k, size in zip(taps, which, sizes, strict=True):
            i = axis.index[k]
            inside = (i >= 0) & (i < size)
            i = torch.where(inside, i, 0.0).long()
            place = i if place is None else place * size + i
            there = inside if there is None else there & inside
        value = flat.gather(2, place.unsqueeze(1).expand(-1, flat.shape[1], -1))
        product_with_g = (torch.where(there.unsqueeze(1), value, 0.0) * gw).sum(1)
        for j in range(dims):
            factors = [(a.slope if i == j else a.weight)[k] for i, (a, k) in enumerate(zip(taps, which, strict=True))]
            term = prod(factors[1:], start=factors[0]) * product_with_g
            made[j] = term if made[j] is None else made[j] + term
    return torch.stack(made[::-1], -1).reshape(grid.shape).to(grid.dtype)


def _sample_formula(
    g: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align: bool, wants: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    return (
        grid_sample_gradient(g, grid, mode, padding, align, list(x.shape[2:])) if wants[0] else None,
        _grid_gradient(g, x, grid, mode, padding, align) if wants[1] else None,
    )


def _sample_gradient_formula(
    h: Tensor, g: Tensor, grid: Tensor, mode: str, padding: str, align: bool, size: Ints, wants: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    return (
        grid_sample(h, grid, mode, padding, align) if wants[0] else None,
        _grid_gradient(g, h, grid, mode, padding, align) if wants[1] else None,
    )


def _sample_dims(y: Ints | None, x: Ints | None, grid: Ints | None, *_: Any) -> tuple[list[Any], list[Any]]:
    """The batch may be cut, and of images the channels."""
    whole = [None] * (len(next(s for s in (x, grid, y) if s is not None)) - 2)
    image = [0, 1, *whole]
    return [image, [0, None, *whole]], [image]


grid_sample = op(
    "grid_sample(Tensor input, Tensor grid, str mode, str padding_mode, bool align_corners) -> Tensor y",
    fake=_new_samples,
    saves="input grid",
    gradients=lambda g, x, grid, mode, padding, align, wants: _new_if(wants, x, grid),
    formula=_sample_formula,
    torch=_sample_by_torch,
    dims=_sample_dims,
    autocast="float32_or_widest",
)
# the gradient to the input as an op of its own: a linear function of g, whose gradient is made of samples again
grid_sample_gradient = op(
    "grid_sample_gradient(Tensor g, Tensor grid, str mode, str padding_mode, bool align_corners, int[] size)"
    " -> Tensor gx",
    fake=lambda g, grid, mode, padding, align, size: g.new_empty([*g.shape[:2], *size]),
    saves="g grid",
    gradients=lambda h, g, grid, mode, padding, align, size, wants: _new_if(wants, g, grid),
    formula=_sample_gradient_formula,
    torch=_sample_gradient_by_torch,
    title="grid_sample",
    dims=_sample_dims,
)
