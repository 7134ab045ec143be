"""Interpolation and samples at the points of a grid with the signatures of ``torch.nn.functional``.

Inputs are [N, C, *sizes] with one to three sizes, of float32, float64, float16 or bfloat16; other dtypes go to torch.
The result is laid out as torch's: channels last where the input is.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops.resampling import MODES, PADDINGS
from ..ops.resampling import grid_sample as _grid_sample
from ..ops.resampling import interpolate as _interpolate
from . import matmul as _matmul
from . import pooling as _pooling

__all__ = ["affine_grid", "grid_sample", "interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

# dims that a mode is for, and what it is in each of them
_MODES: dict[str, tuple[tuple[int, ...], str]] = {
    "nearest": ((1, 2, 3), "nearest"),
    "nearest-exact": ((1, 2, 3), "nearest-exact"),
    "linear": ((1,), "linear"),
    "bilinear": ((2,), "linear"),
    "trilinear": ((3,), "linear"),
    "bicubic": ((2,), "cubic"),
    "area": ((1, 2, 3), "area"),
}
_WITHOUT_CORNERS = ("nearest", "nearest-exact", "area")


def _integer(value: Any) -> bool:
    return isinstance(value, int | torch.SymInt) or hasattr(value, "__index__")


def _each(name: str, value: Any, dims: int, shape: Any) -> list[Any]:
    """One for each dim; a single number serves all."""
    if not isinstance(value, list | tuple):
        return [value] * dims
    if len(value) != dims:
        raise ValueError(
            f"neurokern.interpolate: argument {name} is {list(value)}, expected one number or {dims} for argument "
            f"input of shape {list(shape)}"
        )
    return list(value)


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """The input at another size: [N, C, *sizes] to [N, C, *new sizes].

    Args:
        size: the new sizes; one number is for all dims.
        scale_factor: instead of ``size``, the new sizes by the old ones, rounded down.
        mode: "nearest", "nearest-exact" (by the centers of elements), "area" (an average), "linear" (one dim),
            "bilinear", "bicubic" (two dims; Keys 1981) or "trilinear" (three dims).
        align_corners: of linear and cubic modes: the centers of the outermost elements stay where they are, instead
            of the outer edges. None: False.
        recompute_scale_factor: scale by the sizes, rounded as they are, and not by ``scale_factor``.
        antialias: of "bilinear" and "bicubic": filters as wide as an output where the image becomes smaller.

    Raises:
        ValueError: not one of size and scale_factor is given, or as many as there are dims; align_corners or antialias
            with a mode that has none.
        NotImplementedError: mode is none of these, or not for that many dims.
        RuntimeError: a size of 0.
    """
    if not isinstance(input, Tensor):
        if hasattr(input, "__torch_function__"):  # a tracer's stand-in, whose sizes nobody knows
            more = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
            return torch.nn.functional.interpolate(input, *more)
        raise TypeError(f"neurokern.interpolate: argument input is a {type(input).__name__}, expected a Tensor")
    dims = input.dim() - 2
    if mode in _WITHOUT_CORNERS:
        if align_corners is not None:
            raise ValueError(
                f"neurokern.interpolate: argument align_corners is {align_corners}, expected None for mode {mode!r}"
            )
    elif align_corners is None:
        align_corners = False
    if (size is None) == (scale_factor is None):
        given = "both" if size is not None else "None"
        raise ValueError(f"neurokern.interpolate: arguments size and scale_factor are {given}, expected one of them")
    scales: list[Any] = [None] * max(dims, 0)
    if size is not None:
        sizes = _each("size", size, dims, input.shape)
        if not all(_integer(s) for s in sizes):
            raise TypeError(f"neurokern.interpolate: argument size is {size!r}, expected integers")
        if recompute_scale_factor:
            raise ValueError(
                "neurokern.interpolate: argument recompute_scale_factor is True, expected False where size is given"
            )
    else:
        scales = _each("scale_factor", scale_factor, dims, input.shape)
        if not all(
            isinstance(s, int | float | torch.SymFloat | torch.SymInt) or hasattr(s, "__float__") for s in scales
        ):
            raise TypeError(f"neurokern.interpolate: argument scale_factor is {scale_factor!r}, expected numbers")
        sizes = [torch.sym_int(n * s) for n, s in zip(input.shape[2:], scales, strict=True)]
        if recompute_scale_factor or mode == "area":
            scales = [None] * dims
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and dims == 2):
        raise ValueError(
            f"neurokern.interpolate: argument antialias is True for mode {mode!r} and argument input of shape "
            f"{list(input.shape)}, expected mode bilinear or bicubic and four dims"
        )
    if mode == "lanczos":
        return torch.nn.functional.interpolate(
            input, sizes, mode=mode, align_corners=align_corners, antialias=antialias
        )
    for_dims, each = _MODES.get(mode, ((), ""))
    if dims not in for_dims:
        raise NotImplementedError(
            f"neurokern.interpolate: argument mode is {mode!r} for argument input of shape {list(input.shape)}, "
            "expected linear for three dims, bilinear or bicubic for four, trilinear for five, or one of "
            "nearest, nearest-exact and area"
        )
    if mode == "area":
        return getattr(_pooling, f"adaptive_avg_pool{dims}d")(input, sizes)
    if antialias:
        each = f"antialiased-{each}"
    d, h, w = [None] * (3 - dims) + [None if s is None else float(s) for s in scales]
    return _interpolate(input, each, sizes, list(input.shape[2:]), bool(align_corners), d, h, w)


def _deprecated(name: str, instead: str) -> None:
    warnings.warn(f"`nn.functional.{name}` is deprecated. Use `nn.functional.{instead}` instead.", stacklevel=3)


def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate` by its old name. Warns, as torch does."""
    _deprecated("upsample", "interpolate")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """`interpolate` in mode "nearest", by its old name. Warns, as torch does."""
    _deprecated("upsample_nearest", "interpolate")
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """`interpolate` in mode "bilinear" with ``align_corners``, by its old name. Warns, as torch does."""
    _deprecated("upsample_bilinear", "interpolate")
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def _corners(name: str, align_corners: bool | None) -> bool:
    if align_corners is None:
        warnings.warn(
            f"neurokern.{name}: argument align_corners is None, which is False; give one of True and False",
            stacklevel=3,
        )
        return False
    if not isinstance(align_corners, bool):
        raise TypeError(f"neurokern.{name}: argument align_corners is {align_corners!r}, expected a bool")
    return align_corners


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """The input at the points of a grid: [N, C, H, W] at [N, Ho, Wo, 2] is [N, C, Ho, Wo], and with D alike.

    Args:
        grid: of each point its place along W, H (and D), from -1 to 1.
        mode: "bilinear" (in volumes trilinear), "nearest" or, of images, "bicubic" (Keys 1981, a = -0.75).
        padding_mode: beyond the input are "zeros", what lies at its "border", or its "reflection".
        align_corners: -1 and 1 are the centers of the outermost elements instead of their outer edges. None: False,
            with a warning.

    The result is contiguous. A point at NaN or infinity is NaN in an image of zeros beyond, and none in a volume.

    Raises:
        ValueError: mode or padding_mode is none of these.
        RuntimeError: other numbers of dims, batches that differ, a grid whose last size is not the number of dims, an
            input with a size of 0 behind the channels, "bicubic" of volumes, two dtypes.
    """
    if mode not in MODES:
        raise ValueError(
            f"neurokern.grid_sample: argument mode is {mode!r}, expected 'bilinear', 'nearest' or 'bicubic'"
        )
    if padding_mode not in PADDINGS:
        raise ValueError(
            f"neurokern.grid_sample: argument padding_mode is {padding_mode!r}, expected 'zeros', 'border' or "
            "'reflection'"
        )
    return _grid_sample(input, grid, mode, padding_mode, _corners("grid_sample", align_corners))


def _centers(theta: Tensor, size: Any, align: bool) -> Tensor:
    """Places of `size` elements between -1 and 1."""
    if size == 1:
        return theta.new_zeros(1)
    made = torch.linspace(-1, 1, size, dtype=theta.dtype, device=theta.device)
    return made if align else made * (size - 1) / size


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The points of a regular grid, moved by affine maps, for `grid_sample`.

    Args:
        theta: the maps: [N, 2, 3], or [N, 3, 4] of volumes.
        size: of the images that will be sampled there: [N, C, H, W] gives a grid [N, H, W, 2], and with D alike.
        align_corners: as in `grid_sample`.

    Raises:
        ValueError: theta is not floating or of another shape, a size is not positive.
        NotImplementedError: other than four or five sizes.
        RuntimeError: another batch than theta's.
    """
    align = _corners("affine_grid", align_corners)
    if not isinstance(theta, Tensor) and not hasattr(theta, "__torch_function__"):
        raise TypeError(f"neurokern.affine_grid: argument theta is a {type(theta).__name__}, expected a Tensor")
    if not theta.is_floating_point():
        raise ValueError(f"neurokern.affine_grid: argument theta is {theta.dtype}, expected floating")
    dims = len(size) - 2
    if dims not in (2, 3):
        raise NotImplementedError(f"neurokern.affine_grid: argument size is {list(size)}, expected four or five sizes")
    if theta.dim() != 3 or tuple(theta.shape[1:]) != (dims, dims + 1):
        raise ValueError(
            f"neurokern.affine_grid: argument theta has shape {list(theta.shape)}, expected [N, {dims}, {dims + 1}] "
            f"for size {list(size)}"
        )
    if not all(_integer(s) for s in size):
        raise TypeError(f"neurokern.affine_grid: argument size is {list(size)}, expected integers")
    if min(size) <= 0 and not (align and min(size[2:]) == 1):  # as torch: of single elements a batch may be empty
        raise ValueError(f"neurokern.affine_grid: argument size is {list(size)}, expected positive sizes")
    if theta.shape[0] != size[0]:
        raise RuntimeError(
            f"neurokern.affine_grid: argument theta has shape {list(theta.shape)}, expected the batch of size "
            f"{list(size)}"
        )
    shape = list(size[2:])
    base = theta.new_ones([*shape, dims + 1])
    for k, n in enumerate(shape):
        base[..., dims - 1 - k] = _centers(theta, n, align).view([n if i == k else 1 for i in range(dims)])
    points = base.view(1, -1, dims + 1).expand(theta.shape[0], -1, -1)
    return _matmul.matmul(points, theta.transpose(1, 2)).view([size[0], *shape, dims])
