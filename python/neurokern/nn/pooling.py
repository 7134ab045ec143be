"""torch.nn's pooling layers on our kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]


class MaxPool1d(torch.nn.MaxPool1d):
    """torch.nn.MaxPool1d on our kernels."""

    def forward(self, input: Tensor) -> Any:
        more = (self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return F.max_pool1d(input, self.kernel_size, self.stride, *more)


class MaxPool2d(torch.nn.MaxPool2d):
    """torch.nn.MaxPool2d on our kernels."""

    def forward(self, input: Tensor) -> Any:
        more = (self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return F.max_pool2d(input, self.kernel_size, self.stride, *more)


class MaxPool3d(torch.nn.MaxPool3d):
    """torch.nn.MaxPool3d on our kernels."""

    def forward(self, input: Tensor) -> Any:
        more = (self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return F.max_pool3d(input, self.kernel_size, self.stride, *more)


class AvgPool1d(torch.nn.AvgPool1d):
    """torch.nn.AvgPool1d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        more = (self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool1d(input, self.kernel_size, self.stride, *more)


class AvgPool2d(torch.nn.AvgPool2d):
    """torch.nn.AvgPool2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        more = (self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)
        return F.avg_pool2d(input, self.kernel_size, self.stride, *more)


class AvgPool3d(torch.nn.AvgPool3d):
    """torch.nn.AvgPool3d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        more = (self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)
        return F.avg_pool3d(input, self.kernel_size, self.stride, *more)


class AdaptiveMaxPool1d(torch.nn.AdaptiveMaxPool1d):
    """torch.nn.AdaptiveMaxPool1d on our kernels."""

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(torch.nn.AdaptiveMaxPool2d):
    """torch.nn.AdaptiveMaxPool2d on our kernels."""

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(torch.nn.AdaptiveMaxPool3d):
    """torch.nn.AdaptiveMaxPool3d on our kernels."""

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)


class AdaptiveAvgPool1d(torch.nn.AdaptiveAvgPool1d):
    """torch.nn.AdaptiveAvgPool1d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(torch.nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(torch.nn.AdaptiveAvgPool3d):
    """torch.nn.AdaptiveAvgPool3d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool3d(input, self.output_size)


class LPPool1d(torch.nn.LPPool1d):
    """torch.nn.LPPool1d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool1d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool2d(torch.nn.LPPool2d):
    """torch.nn.LPPool2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool2d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool3d(torch.nn.LPPool3d):
    """torch.nn.LPPool3d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool3d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class FractionalMaxPool2d(torch.nn.FractionalMaxPool2d):
    """torch.nn.FractionalMaxPool2d on our kernels."""

    def forward(self, input: Tensor) -> Any:
        more = (self.output_size, self.output_ratio, self.return_indices, self._random_samples)
        return F.fractional_max_pool2d(input, self.kernel_size, *more)


class FractionalMaxPool3d(torch.nn.FractionalMaxPool3d):
    """torch.nn.FractionalMaxPool3d on our kernels."""

    def forward(self, input: Tensor) -> Any:
        more = (self.output_size, self.output_ratio, self.return_indices, self._random_samples)
        return F.fractional_max_pool3d(input, self.kernel_size, *more)


class MaxUnpool1d(torch.nn.MaxUnpool1d):
    """torch.nn.MaxUnpool1d on our kernels."""

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(torch.nn.MaxUnpool2d):
    """torch.nn.MaxUnpool2d on our kernels."""

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool3d(torch.nn.MaxUnpool3d):
    """torch.nn.MaxUnpool3d on our kernels."""

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.max_unpool3d(input, indices, self.kernel_size, self.stride, self.padding, output_size)
