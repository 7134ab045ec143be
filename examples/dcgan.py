"""A deep convolutional generative adversarial network that draws digits, after scikit-learn's of 8 x 8 grey levels.

The generator makes an image of 64 random numbers by three transposed convolutions; the discriminator tells those from
images of the data by three convolutions of stride 2, and each is trained against the other (Goodfellow et al. 2014).
Batch norms, LeakyReLU, initial weights and Adam's settings are those of Radford, Metz and Chintala (2015).

What it draws is judged as by the inception score (Salimans et al. 2016), where a perceptron trained on the digits takes
Inception's place: exp(entropy of the classes over all samples - mean entropy within a sample), which is 10 where each
sample is one digit beyond doubt and all digits come up as often, and 1 where all samples are alike to the perceptron.

    python examples/dcgan.py

writes dcgan.png, a hundred samples.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import neurokern
import torch
from neurokern.examples import mlp, pictures, training
from torch import Tensor
from torch.nn.functional import softplus

NAME = "DCGAN"
DATA = "digits"
NUMBERS, WIDTH = 64, 32  # that an image is made of; channels of the layers next to the images
SECONDS = 0.6  # of an epoch on both sides, on two cores
EPOCHS, BATCH, TURN, RATE = 40, 32, 5, 5e-4
SAMPLES, JUDGE_EPOCHS = 1000, 20
SCORE = 7.0  # least inception score of the samples, of 10
AGREEMENT, COMPARED = 1e-4, 10  # most that the loss of a turn may differ from torch's, in so many first batches


def data() -> training.Data:
    """Training and test images [n, 1, 8, 8] in -1..1, and their classes [n]."""
    x, y, x_test, y_test = pictures.digits()
    return 2 * x - 1, y, 2 * x_test - 1, y_test


class DCGAN(torch.nn.Module):
    """Random numbers [n, NUMBERS] -> images [n, 1, 8, 8] in -1..1; nn is neurokern.nn or torch.nn."""

    def __init__(self, nn: ModuleType) -> None:
        super().__init__()
        a, b, c = WIDTH, 2 * WIDTH, 4 * WIDTH
        self.generator = nn.Sequential(
            nn.Unflatten(1, (NUMBERS, 1, 1)),
            nn.ConvTranspose2d(NUMBERS, c, 2, bias=False), nn.BatchNorm2d(c), nn.ReLU(),
            nn.ConvTranspose2d(c, b, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            nn.ConvTranspose2d(b, 1, 4, stride=2, padding=1), nn.Tanh(),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, a, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2),
            nn.Conv2d(b, 1, 2), nn.Flatten(0),
        )  # fmt: skip
        for name, parameter in self.named_parameters():
            if parameter.dim() == 4:
                torch.nn.init.normal_(parameter, 0.0, 0.02)
            elif name.endswith("weight"):  # of a batch norm
                torch.nn.init.normal_(parameter, 1.0, 0.02)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.generator(numbers)

    def told_apart(self, images: Tensor, made: Tensor) -> Tensor:
        """The discriminator's loss: mean -log of the probability that it gives the truth, for both halves."""
        return (softplus(-self.discriminator(images)) + softplus(self.discriminator(made))).mean()

    def taken_for_true(self, made: Tensor) -> Tensor:
        """The generator's loss: mean -log of the probability that its images are taken for the data's."""
        return softplus(-self.discriminator(made)).mean()


def ours() -> torch.nn.Module:
    """On our kernels."""
    return pictures.channels_last(DCGAN(neurokern.nn))


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    return pictures.channels_last(DCGAN(torch.nn))


def numbers(n: int, generator: torch.Generator) -> Tensor:
    """What n images are made of."""
    return torch.randn(n, NUMBERS, generator=generator)


class Trainer(training.Trainer):
    """Adam for each of the two; the numbers are drawn anew at every step, the same on both sides."""

    def __init__(self, model: torch.nn.Module) -> None:
        def adam(network: torch.nn.Module) -> torch.optim.Optimizer:
            return torch.optim.Adam(network.parameters(), RATE, betas=(0.5, 0.999), fused=True)

        super().__init__(model, adam(model.generator), BATCH)
        self.discriminators = adam(model.discriminator)
        self.draw = torch.Generator().manual_seed(0)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """A step of the discriminator on images x and as many made, one of the generator; the sum of their losses."""
        made = self.model(numbers(len(x), self.draw))
        apart = self.model.told_apart(x, made.detach())
        self.discriminators.zero_grad()
        apart.backward()
        self.discriminators.step()
        taken = self.model.taken_for_true(made)
        self.optimizer.zero_grad()
        taken.backward()
        self.optimizer.step()
        return (apart + taken).detach()

    @torch.no_grad()
    def score(self, x: Tensor, y: Tensor) -> float:
        """The inception score of SAMPLES images that it makes."""
        self.model.eval()
        return judged(samples(self.model, SAMPLES))[0]


@torch.no_grad()
def samples(model: torch.nn.Module, n: int) -> Tensor:
    """n images [n, 1, 8, 8], the same at every call."""
    return model(numbers(n, torch.Generator().manual_seed(1)))


@lru_cache
def judge() -> torch.nn.Module:
    """The perceptron that says which digit an image is, trained on the digits; torch's generator is as before it."""
    x, y, *_ = mlp.data()
    with torch.enable_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        trainer = mlp.Trainer(mlp.ours())
        for _ in range(JUDGE_EPOCHS):
            trainer.epoch(x, y, torch.randperm(len(x)))
    return trainer.model.eval()


@torch.no_grad()
def judged(images: Tensor) -> tuple[float, float, float]:
    """Of images in -1..1: inception score, mean probability of the likeliest digit, entropy of the classes in bits.

    The entropy is that of the likeliest digits over all images, at most log2(10) = 3.32.
    """
    shares = judge()((images.flatten(1) + 1) / 2).softmax(-1)
    within = torch.special.entr(shares).sum(-1).mean()
    over_all = torch.special.entr(shares.mean(0)).sum()
    likeliest = shares.argmax(-1).bincount(minlength=10) / len(images)
    bits = torch.special.entr(likeliest).sum() / math.log(2)
    return float((over_all - within).exp()), float(shares.amax(-1).mean()), float(bits)


def sample(model: torch.nn.Module) -> str:
    """What the judge says of samples and of the test images."""
    *_, x, _ = data()
    found = {"samples": judged(samples(model, SAMPLES)), "digits": judged(x)}
    return "\n".join(
        f"{name}: inception score {score:.2f}, mean confidence {sure:.3f}, entropy of classes {bits:.2f} bits"
        for name, (score, sure, bits) in found.items()
    )


def picture(model: torch.nn.Module) -> Tensor:
    """A hundred samples [5, 20, 8, 8] in 0..1."""
    return (samples(model, 100).view(5, 20, pictures.SIZE, pictures.SIZE) + 1) / 2


def main() -> None:
    """Train on our kernels, then write samples."""
    torch.manual_seed(0)
    trainer = Trainer(ours())
    training.run(trainer, data(), EPOCHS)
    print(sample(trainer.model))
    pictures.save(Path("dcgan.png"), picture(trainer.model))


if __name__ == "__main__":
    main()
