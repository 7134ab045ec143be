"""A multi-layer perceptron on scikit-learn's digits: 1797 images of 8 x 8 grey levels, ten classes.

Three hidden layers, each a linear layer with GELU fused into it: the activation is applied while the product is still
in registers, and its derivative is fused with the bias gradient on the way back.

    python examples/mlp.py
"""

from __future__ import annotations

from itertools import pairwise

import neurokern
import torch
from neurokern.examples import training
from torch import Tensor

NAME = "MLP"
DATA = "digits"
SECONDS = 0.07  # of an epoch on both sides, on two cores
EPOCHS, BATCH, RATE, HIDDEN = 30, 64, 0.05, (256, 256, 256)  # at twice the rate, training magnifies rounding
ACCURACY = 0.95  # least share of the test set
AGREEMENT = 1e-4  # most that the loss of an epoch may differ between our kernels and torch


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images [n, 64] in 0..1, and their classes [n]."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x / 16, y, test_size=0.2, random_state=0, stratify=y)
    x_train, x_test = (torch.tensor(p, dtype=torch.float32) for p in parts[:2])
    y_train, y_test = (torch.tensor(p) for p in parts[2:])
    return x_train, y_train, x_test, y_test


def ours() -> torch.nn.Module:
    """On our kernels: linear + GELU in one."""
    nn = neurokern.nn
    sizes = (64, *HIDDEN)
    hidden = [nn.LinearActivation(k, n, activation="gelu") for k, n in pairwise(sizes)]
    return nn.Sequential(*hidden, nn.Linear(HIDDEN[-1], 10))


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    nn = torch.nn
    sizes = (64, *HIDDEN)
    hidden = [layer for k, n in pairwise(sizes) for layer in (nn.Linear(k, n), nn.GELU())]
    return nn.Sequential(*hidden, nn.Linear(HIDDEN[-1], 10))


class Trainer(training.Trainer):
    """Plain gradient descent with momentum."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model, torch.optim.SGD(model.parameters(), RATE, momentum=0.9, fused=True), BATCH)


def main() -> None:
    """Train on our kernels."""
    torch.manual_seed(0)
    trainer = Trainer(ours())
    training.run(trainer, data(), EPOCHS)


if __name__ == "__main__":
    main()
