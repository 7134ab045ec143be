"""Rosenblatt's perceptron (1958) on scikit-learn's breast-cancer set: 569 tumours, 30 measurements, benign or not.

Every sample is extended by a constant 1, whose weight is the bias, and multiplied by minus its label -1 or +1. The
perceptron is right about such a sample z when w . z < 0, so relu(w . z) is its error: one fused linear + ReLU. The rule
takes the samples it is wrong about from w; here those of a batch at a time, as in Duda and Hart (1973). The
classifier is the mean of all w on the way, which errs less than the last (Freund and Schapire 1999).

    python examples/perceptron.py
"""

from __future__ import annotations

import neurokern
import torch
from torch import Tensor

NAME = "perceptron"
DATA = "breast cancer"
SECONDS = 0.01  # of an epoch on both sides, on two cores
EPOCHS, BATCH, RATE = 60, 64, 0.01
ACCURACY = 0.95  # least share of the test set
AGREEMENT = 1e-4  # most that the loss of an epoch may differ between our kernels and torch


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test samples [n, 31] as above, from standardized measurements, and their labels -1 or +1 [n]."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    x, y = load_breast_cancer(return_X_y=True)
    train, test, y_train, y_test = train_test_split(x, 2 * y - 1, test_size=0.2, random_state=0, stratify=y)
    mean, deviation = train.mean(0), train.std(0)
    found = []
    for part, labels in ((train, y_train), (test, y_test)):
        x, y = torch.tensor((part - mean) / deviation).float(), torch.tensor(labels).float()
        found += [torch.cat([x, torch.ones(len(x), 1)], 1) * -y.unsqueeze(1), y]
    return tuple(found)


def ours() -> torch.nn.Module:
    """The perceptron's error on our kernels: relu fused into the linear layer."""
    return neurokern.nn.LinearActivation(31, 1, bias=False, activation="relu")


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    return torch.nn.Sequential(torch.nn.Linear(31, 1, bias=False), torch.nn.ReLU())


class Trainer:
    """Trains one of the two, epoch by epoch."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        (self.weight,) = model.parameters()
        self.sum = torch.zeros_like(self.weight)  # of the weights after every batch
        self.product = neurokern.functional.matmul if type(model) is not torch.nn.Sequential else torch.matmul

    @torch.no_grad()
    def epoch(self, x: Tensor, y: Tensor, order: Tensor) -> float:
        """One pass in the given order; returns the mean error."""
        total = torch.zeros(())
        for z in x[order].split(BATCH):
            error = self.model(z)
            total += error.sum()
            # w -= rate * sum of the samples that are wrong
            self.weight.sub_(self.product(error.sign().t(), z), alpha=RATE)
            self.sum += self.weight
        return float(total) / len(order)

    @torch.no_grad()
    def score(self, x: Tensor, y: Tensor) -> float:
        """Share of samples on the right side."""
        return float((x @ self.sum.t() < 0).float().mean())


def main() -> None:
    """Train on our kernels."""
    torch.manual_seed(0)
    x, y, x_test, y_test = data()
    trainer = Trainer(ours())
    for epoch in range(EPOCHS):
        loss = trainer.epoch(x, y, torch.randperm(len(x)))
        print(f"epoch {epoch + 1:3}  loss {loss:.4f}  test accuracy {trainer.score(x_test, y_test):.4f}")


if __name__ == "__main__":
    main()
