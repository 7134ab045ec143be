"""A convolutional autoencoder that takes noise out of scikit-learn's digits, images of 8 x 8 grey levels.

Two convolutions of stride 2 shrink an image to 2 x 2 positions, two that follow a bilinear enlargement bring it back;
an enlargement by itself leaves no checkerboard, as a transposed convolution may (Odena, Dumoulin and Olah 2016). The
input has Gaussian noise, the target has none (Vincent et al. 2008). What it restores is judged by the mean square
error against the clean image, beside that of the noisy one.

    python examples/denoising_autoencoder.py

writes denoising_autoencoder.png: test images, the same with noise, and restored.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import neurokern
import torch
from neurokern.examples import pictures, training
from torch import Tensor
from torch.nn.functional import mse_loss

NAME = "denoising autoencoder"
DATA = "digits"
WIDTH, NOISE = 32, 0.4  # channels of the first layer; standard deviation, of grey levels in 0..1
SECONDS = 0.7  # of an epoch on both sides, on two cores
EPOCHS, BATCH, TURN, RATE = 20, 32, 5, 2e-3
ERROR = 0.04  # most that a restored pixel may miss, squared, in the mean
AGREEMENT, COMPARED = 1e-4, 45  # most that the loss of a turn may differ from torch's, in so many first batches


def noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images with noise."""
    return images + NOISE * torch.randn(images.shape, generator=generator)


def data() -> training.Data:
    """Clean images for training, twice [n, 1, 8, 8]; noisy images for testing, and the same clean."""
    x, _, x_test, _ = pictures.digits()
    return x, x, noisy(x_test, torch.Generator().manual_seed(1)), x_test


class DenoisingAutoencoder(torch.nn.Module):
    """Images [n, 1, 8, 8] -> images of the same shape in 0..1; nn is neurokern.nn or torch.nn."""

    def __init__(self, nn: ModuleType) -> None:
        super().__init__()
        a, b, c = WIDTH, 2 * WIDTH, 4 * WIDTH
        self.encoder = nn.Sequential(
            nn.Conv2d(1, a, 3, padding=1), nn.ReLU(),
            nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(b, c, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(c, b, 3, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(b, a, 3, padding=1), nn.ReLU(),
            nn.Conv2d(a, 1, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))


def ours() -> torch.nn.Module:
    """On our kernels."""
    return pictures.channels_last(DenoisingAutoencoder(neurokern.nn))


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    return pictures.channels_last(DenoisingAutoencoder(torch.nn))


class Trainer(training.AdamWTrainer):
    """AdamW; the noise is drawn anew at every step, the same on both sides."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model, RATE, BATCH, EPOCHS * 45)
        self.draw = torch.Generator().manual_seed(0)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean square error of what is made of clean images x with noise, against y."""
        return mse_loss(self.model(noisy(x, self.draw)), y)

    @torch.no_grad()
    def score(self, x: Tensor, y: Tensor) -> float:
        """Mean square error of what is made of noisy images x, against clean images y."""
        self.model.eval()
        return float(mse_loss(self.model(x), y))


@torch.no_grad()
def sample(model: torch.nn.Module) -> str:
    """The error of the test images before and after."""
    *_, x, y = data()
    return f"mean square error of the test images: {mse_loss(x, y):.4f} noisy, {mse_loss(model(x), y):.4f} restored"


@torch.no_grad()
def picture(model: torch.nn.Module) -> Tensor:
    """Test images [3, 16, 8, 8]: clean, noisy, restored."""
    *_, x, y = data()
    return torch.stack([y[:16], x[:16], model(x[:16])]).squeeze(2)


def main() -> None:
    """Train on our kernels, then write the picture."""
    torch.manual_seed(0)
    trainer = Trainer(ours())
    training.run(trainer, data(), EPOCHS)
    print(sample(trainer.model))
    pictures.save(Path("denoising_autoencoder.png"), picture(trainer.model))


if __name__ == "__main__":
    main()
