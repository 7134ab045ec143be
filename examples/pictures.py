"""What the networks of images share: scikit-learn's digits as images of one channel, and PNG files of what was made."""

from __future__ import annotations

from pathlib import Path

import torch
from neurokern.examples import mlp
from neurokern.examples.training import Data
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import pad

SIZE = 8  # pixels of an image's side
SCALE = 8  # pixels of a file for each of an image, on a side


def digits() -> Data:
    """Training and test images [n, 1, SIZE, SIZE] in 0..1, and their classes [n]: those of the MLP."""
    x, y, x_test, y_test = mlp.data()
    return x.view(-1, 1, SIZE, SIZE), y, x_test.view(-1, 1, SIZE, SIZE), y_test


def channels_last(model: Module) -> Module:
    """The model with its weights channels last; so are then its images inside: the faster layout on both sides."""
    return model.to(memory_format=torch.channels_last)


def grid(images: Tensor) -> Tensor:
    """Images [rows, columns, h, w] side by side: [rows * (h + 1) + 1, columns * (w + 1) + 1], with white lines."""
    framed = pad(images, (0, 1, 0, 1), value=1.0)
    return pad(framed.transpose(1, 2).flatten(2).flatten(0, 1), (1, 0, 1, 0), value=1.0)


def save(path: Path, images: Tensor) -> None:
    """Write images [rows, columns, h, w] in 0..1 as one PNG; what lies outside is cut off."""
    from matplotlib.image import imsave

    pixels = grid(images.detach().float().clamp(0, 1)).repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)
    imsave(path, pixels.numpy(), cmap="gray", vmin=0.0, vmax=1.0)
