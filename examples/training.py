"""What the networks share: steps of one optimizer, epoch by epoch, and the share of a test set that is told right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Trainer:
    """Trains one network, ours or torch's. Loss and optimizer are torch's for both.

    Attributes:
        model: maps inputs [batch, ...] to the logits of their classes [batch, ..., classes].
        optimizer: of its parameters.
        batch: samples in a step.
    """

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: int) -> None:
        self.model, self.optimizer, self.batch = model, optimizer, batch

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross entropy of inputs x against their classes y [batch, ...]."""
        return cross_entropy(self.model(x).flatten(0, -2), y.flatten())

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One step on a batch; returns its loss."""
        loss = self.loss(x, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def epoch(self, x: Tensor, y: Tensor, order: Tensor) -> float:
        """A step for each batch of the samples `order`; returns the mean loss."""
        self.model.train()
        batches = [(x[part], y[part]) for part in order.split(self.batch)]
        return float(sum(self.step(xb, yb) * len(xb) for xb, yb in batches)) / len(order)

    @torch.no_grad()
    def score(self, x: Tensor, y: Tensor) -> float:
        """Share of the samples told right."""
        self.model.eval()
        return float((self.model(x).argmax(-1) == y).float().mean())


class AdamWTrainer(Trainer):
    """AdamW with a rate that rises for the first tenth of `steps`, then falls to a twentieth (Loshchilov, Hutter)."""

    def __init__(self, model: torch.nn.Module, rate: float, batch: int, steps: int) -> None:
        super().__init__(model, torch.optim.AdamW(model.parameters(), rate, fused=True), batch)

        def share(step: int) -> float:
            return min(10 * (step + 1) / steps, max(0.05, 1 - step / steps))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, share)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One step, and the next one's rate."""
        loss = super().step(x, y)
        self.schedule.step()
        return loss


Data = tuple[Tensor, Tensor, Tensor, Tensor]  # samples and classes for training, then those for testing


def run(trainer: Trainer, data: Data, epochs: int, batches: int | None = None) -> None:
    """Train, and tell loss and score after every epoch or number of batches."""
    x, y, x_test, y_test = data
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        for i, part in enumerate(order.split(batches * trainer.batch if batches else len(x))):
            loss, score = trainer.epoch(x, y, part), trainer.score(x_test, y_test)
            turn = f", batch {(i + 1) * batches:4}" if batches else ""
            print(f"epoch {epoch + 1:2}{turn}  loss {loss:.4f}  test score {score:.4f}", flush=True)
