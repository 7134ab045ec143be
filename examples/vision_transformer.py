"""A vision transformer on scikit-learn's digits: images of 8 x 8 grey levels, cut into 16 patches of 2 x 2.

A patch becomes a token by a linear layer, its place is learned, four encoder layers let the patches look at each other,
and the mean of their outputs tells the digit (Dosovitskiy et al. 2020, without a token for the class). The layers
are torch.nn's with `neurokern.nn` in the place of `torch.nn`.

    python examples/vision_transformer.py
"""

from __future__ import annotations

import neurokern
import torch
from neurokern.examples import mlp, training
from torch import Tensor

NAME = "vision transformer"
DATA = "digits"
WIDTH, HEADS, LAYERS, PATCH = 128, 4, 4, 2
SECONDS = 2.6  # of an epoch on both sides, on two cores
EPOCHS, BATCH, RATE = 10, 32, 1e-3
ACCURACY = 0.95  # least share of the test set
AGREEMENT = 1e-4  # most that the loss of an epoch may differ between our kernels and torch


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images [n, 64] in 0..1, and their classes [n]: those of the MLP."""
    return mlp.data()


def patches(images: Tensor) -> Tensor:
    """[n, 64] -> [n, 16, 4]: the pixels of each patch."""
    rows = images.view(-1, 8 // PATCH, PATCH, 8 // PATCH, PATCH)
    return rows.transpose(2, 3).flatten(3).flatten(1, 2)


class VisionTransformer(torch.nn.Module):
    """Images [n, 64] -> logits of the digits [n, 10]; nn is neurokern.nn or torch.nn."""

    def __init__(self, nn) -> None:
        super().__init__()
        self.embed = nn.Linear(PATCH * PATCH, WIDTH)
        self.places = torch.nn.Parameter(torch.randn((8 // PATCH) ** 2, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(patches(images)) + self.places).mean(1))


def ours() -> torch.nn.Module:
    """On our kernels."""
    return VisionTransformer(neurokern.nn)


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    return VisionTransformer(torch.nn)


class Trainer(training.AdamWTrainer):
    """AdamW with the rate of this network."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model, RATE, BATCH, EPOCHS * 45)


def main() -> None:
    """Train on our kernels."""
    torch.manual_seed(0)
    trainer = Trainer(ours())
    training.run(trainer, data(), EPOCHS)


if __name__ == "__main__":
    main()
