"""Layers that pad, shuffle and unfold: torch.nn's classes with a forward on our kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import functional as F

__all__ = [
    "ChannelShuffle",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "Fold",
    "PixelShuffle",
    "PixelUnshuffle",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Unfold",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class ConstantPad1d(torch.nn.ConstantPad1d):
    """torch.nn.ConstantPad1d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ConstantPad2d(torch.nn.ConstantPad2d):
    """torch.nn.ConstantPad2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ConstantPad3d(torch.nn.ConstantPad3d):
    """torch.nn.ConstantPad3d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ZeroPad1d(torch.nn.ZeroPad1d):
    """torch.nn.ZeroPad1d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ZeroPad2d(torch.nn.ZeroPad2d):
    """torch.nn.ZeroPad2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ZeroPad3d(torch.nn.ZeroPad3d):
    """torch.nn.ZeroPad3d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ReflectionPad1d(torch.nn.ReflectionPad1d):
    """torch.nn.ReflectionPad1d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "reflect")


class ReflectionPad2d(torch.nn.ReflectionPad2d):
    """torch.nn.ReflectionPad2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "reflect")


class ReflectionPad3d(torch.nn.ReflectionPad3d):
    """torch.nn.ReflectionPad3d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "reflect")


class ReplicationPad1d(torch.nn.ReplicationPad1d):
    """torch.nn.ReplicationPad1d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "replicate")


class ReplicationPad2d(torch.nn.ReplicationPad2d):
    """torch.nn.ReplicationPad2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "replicate")


class ReplicationPad3d(torch.nn.ReplicationPad3d):
    """torch.nn.ReplicationPad3d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "replicate")


class CircularPad1d(torch.nn.CircularPad1d):
    """torch.nn.CircularPad1d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Tensor):  # else the function says what it is
            self._check_input_dim(input)
        return F.pad(input, self.padding, "circular")


class CircularPad2d(torch.nn.CircularPad2d):
    """torch.nn.CircularPad2d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Tensor):  # else the function says what it is
            self._check_input_dim(input)
        return F.pad(input, self.padding, "circular")


class CircularPad3d(torch.nn.CircularPad3d):
    """torch.nn.CircularPad3d on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Tensor):  # else the function says what it is
            self._check_input_dim(input)
        return F.pad(input, self.padding, "circular")


class PixelShuffle(torch.nn.PixelShuffle):
    """torch.nn.PixelShuffle on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(torch.nn.PixelUnshuffle):
    """torch.nn.PixelUnshuffle on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)


class ChannelShuffle(torch.nn.ChannelShuffle):
    """torch.nn.ChannelShuffle on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)


class Unfold(torch.nn.Unfold):
    """torch.nn.Unfold on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(torch.nn.Fold):
    """torch.nn.Fold on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)
