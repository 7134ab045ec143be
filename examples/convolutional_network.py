"""A convolutional network of AlexNet's pattern on scikit-learn's digits, enlarged to 16 x 16 grey levels.

Five convolutions with ReLU; max pooling whose windows overlap behind the first, second and fifth; then three linear
layers with dropout before the first two (Krizhevsky, Sutskever and Hinton 2012). The widths are for images of this
size, and the first two convolutions are normalized over the batch (Ioffe and Szegedy 2015), not across channels.

    python examples/convolutional_network.py
"""

from __future__ import annotations

from types import ModuleType

import neurokern
import torch
from neurokern.examples import pictures, training
from torch import Tensor

NAME = "convolutional network"
DATA = "digits"
WIDTHS, HIDDEN = (16, 32, 64, 64, 32), 128
SECONDS = 0.75  # of an epoch on both sides, on two cores
EPOCHS, BATCH, TURN, RATE, DROPOUT = 12, 32, 5, 1e-3, 0.25
ACCURACY = 0.97  # least share of the test set
AGREEMENT, COMPARED = 1e-4, 10  # most that the loss of a turn may differ from torch's, in so many first batches


def data() -> training.Data:
    """Training and test images [n, 1, 8, 8] in 0..1, and their classes [n]."""
    return pictures.digits()


class ConvolutionalNetwork(torch.nn.Module):
    """Images [n, 1, 8, 8] -> logits of the digits [n, 10]; nn is neurokern.nn or torch.nn."""

    def __init__(self, nn: ModuleType) -> None:
        super().__init__()
        a, b, c, d, e = WIDTHS
        # torch's dropout on both sides: they are compared, so both have to drop the same
        self.features = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(1, a, 5, padding=2), nn.BatchNorm2d(a), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(a, b, 5, padding=2), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(),
            torch.nn.Dropout(DROPOUT), nn.Linear(4 * e, HIDDEN), nn.ReLU(),
            torch.nn.Dropout(DROPOUT), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


def ours() -> torch.nn.Module:
    """On our kernels."""
    return pictures.channels_last(ConvolutionalNetwork(neurokern.nn))


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    return pictures.channels_last(ConvolutionalNetwork(torch.nn))


class Trainer(training.AdamWTrainer):
    """AdamW; a step's number is the seed of what it drops."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model, RATE, BATCH, EPOCHS * 45)
        self.steps = 0

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One step; torch's generator is as before it."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.steps)
            loss = super().step(x, y)
        self.steps += 1
        return loss


def main() -> None:
    """Train on our kernels."""
    torch.manual_seed(0)
    trainer = Trainer(ours())
    training.run(trainer, data(), EPOCHS)


if __name__ == "__main__":
    main()
