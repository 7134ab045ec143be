"""torch.nn's layers of interpolation on our kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import functional as F

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]


def _forward(layer: torch.nn.Upsample, input: Tensor) -> Tensor:
    more = (layer.mode, layer.align_corners, layer.recompute_scale_factor)
    return F.interpolate(input, layer.size, layer.scale_factor, *more)


class Upsample(torch.nn.Upsample):
    """torch.nn.Upsample on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)


class UpsamplingNearest2d(torch.nn.UpsamplingNearest2d):
    """torch.nn.UpsamplingNearest2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)


class UpsamplingBilinear2d(torch.nn.UpsamplingBilinear2d):
    """torch.nn.UpsamplingBilinear2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)
