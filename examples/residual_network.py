"""A residual network on scikit-learn's digits: 1797 images of 8 x 8 grey levels, ten classes.

A block adds what two convolutions make of its input to that input, so that depth costs no gradient; each convolution
is normalized over the batch. The second and third stage halve the image by a convolution of stride 2 and double the
channels, on the way around the block by one of 1 x 1; the mean over the image goes to the last layer. This is the
network of He, Zhang, Ren and Sun (2015) for small images, with one block in each of three stages.

    python examples/residual_network.py
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType

import neurokern
import torch
from neurokern.examples import pictures, training
from torch import Tensor

NAME = "residual network"
DATA = "digits"
WIDTHS, BLOCKS = (32, 64, 128), 1  # channels of a stage, blocks in each
SECONDS = 0.9  # of an epoch on both sides, on two cores
EPOCHS, BATCH, TURN, RATE = 8, 32, 5, 0.01
ACCURACY = 0.97  # least share of the test set
AGREEMENT, COMPARED = 1e-4, 5  # most that the loss of a turn may differ from torch's, in so many first batches


def data() -> training.Data:
    """Training and test images [n, 1, 8, 8] in 0..1, and their classes [n]."""
    return pictures.digits()


class Block(torch.nn.Module):
    """[n, c, h, w] -> [n, width, h / stride, w / stride]: the input, plus two convolutions of it."""

    def __init__(self, nn: ModuleType, c: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, width, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.around = nn.Identity()
        if stride != 1 or c != width:
            self.around = nn.Sequential(nn.Conv2d(c, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.around(x))


class ResidualNetwork(torch.nn.Module):
    """Images [n, 1, 8, 8] -> logits of the digits [n, 10]; nn is neurokern.nn or torch.nn."""

    def __init__(self, nn: ModuleType) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.stem = nn.Sequential(nn.Conv2d(1, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        blocks = []
        for before, width in pairwise((first, *WIDTHS)):
            blocks.append(Block(nn, before, width, 1 if before == width else 2))
            blocks += [Block(nn, width, width, 1) for _ in range(BLOCKS - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)))


def ours() -> torch.nn.Module:
    """On our kernels."""
    return pictures.channels_last(ResidualNetwork(neurokern.nn))


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    return pictures.channels_last(ResidualNetwork(torch.nn))


class Trainer(training.Trainer):
    """Gradient descent with momentum and weight decay."""

    def __init__(self, model: torch.nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=1e-4, fused=True)
        super().__init__(model, optimizer, BATCH)


def main() -> None:
    """Train on our kernels."""
    torch.manual_seed(0)
    trainer = Trainer(ours())
    training.run(trainer, data(), EPOCHS)


if __name__ == "__main__":
    main()
