"""torch.nn's layers of the softmax family on our kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import functional as F

__all__ = ["LogSoftmax", "Softmax", "Softmax2d", "Softmin"]


class Softmax(torch.nn.Softmax):
    """torch.nn.Softmax on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(torch.nn.LogSoftmax):
    """torch.nn.LogSoftmax on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class Softmin(torch.nn.Softmin):
    """torch.nn.Softmin on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim)


class Softmax2d(torch.nn.Softmax2d):
    """torch.nn.Softmax2d on our kernels: softmax over the channels of [N, C, H, W] or [C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ValueError(
                f"neurokern.Softmax2d: argument input has shape {list(input.shape)}, expected 3 or 4 dimensions"
            )
        return F.softmax(input, -3)
