"""Resampling's Triton kernels under the names of ``neurokern._C``, as in `triton`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..kernels.triton import resampling as _resampling
from .triton_launch import recorded

__all__ = ["interpolate", "interpolate_backward", "interpolate_gradient_backward"]


def interpolate(y: Tensor, x: Tensor, mode: str, size: Any, input_size: Any, align: bool, *scales: Any) -> None:
    """y = x at another size."""
    recorded("interpolate", _resampling.interpolate, y, x, mode, size, input_size, align, scales, False)


interpolate_gradient_backward = interpolate


def interpolate_backward(
    gx: Tensor, g: Tensor, mode: str, size: Any, input_size: Any, align: bool, *scales: Any
) -> None:
    """The gradient of interpolate."""
    recorded("interpolate_backward", _resampling.interpolate, gx, g, mode, size, input_size, align, scales, True)
