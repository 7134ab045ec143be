"""Resampling's Triton kernels under the names of ``neurokern._C``, as in `triton`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..kernels.triton import grid_sample as _grid_sample
from ..kernels.triton import resampling as _resampling
from .triton_launch import Maybe, recorded

__all__ = [
    "grid_sample",
    "grid_sample_backward",
    "grid_sample_gradient",
    "grid_sample_gradient_backward",
    "interpolate",
    "interpolate_backward",
    "interpolate_gradient_backward",
]


def interpolate(y: Tensor, x: Tensor, mode: str, size: Any, input_size: Any, align: bool, *scales: Any) -> None:
    """y = x at another size."""
    recorded("interpolate", _resampling.interpolate, y, x, mode, size, input_size, align, scales, False)


interpolate_gradient_backward = interpolate


def interpolate_backward(
    gx: Tensor, g: Tensor, mode: str, size: Any, input_size: Any, align: bool, *scales: Any
) -> None:
    """The gradient of interpolate."""
    recorded("interpolate_backward", _resampling.interpolate, gx, g, mode, size, input_size, align, scales, True)


def grid_sample(y: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> None:
    """y = x at the points of the grid."""
    recorded("grid_sample", _grid_sample.sample, y, x, grid, mode, padding, align, False)


def grid_sample_backward(gx: Maybe, gg: Maybe, g: Tensor, x: Tensor, grid: Tensor, *given: Any) -> None:
    """The gradients of grid_sample to input and grid."""
    if gx is not None:
        recorded("grid_sample_backward", _grid_sample.image_gradient, gx, g, grid, *given[:3])
    if gg is not None:
        recorded("grid_sample_backward", _grid_sample.grid_gradient, gg, g, x, grid, *given[:3])


def grid_sample_gradient(gx: Tensor, g: Tensor, grid: Tensor, mode: str, padding: str, align: bool, size: Any) -> None:
    """The gradient of grid_sample to an input of that size."""
    recorded("grid_sample_gradient", _grid_sample.image_gradient, gx, g, grid, mode, padding, align)


def grid_sample_gradient_backward(to_g: Maybe, to_grid: Maybe, h: Tensor, g: Tensor, grid: Tensor, *given: Any) -> None:
    """The gradients of grid_sample_gradient to g and grid."""
    if to_g is not None:
        recorded("grid_sample_gradient_backward", _grid_sample.sample, to_g, h, grid, *given[:3], True)
    if to_grid is not None:
        recorded("grid_sample_gradient_backward", _grid_sample.grid_gradient, to_grid, g, h, grid, *given[:3])
