"""``neurokern demo``: the example networks on our kernels and on torch.nn, epoch by epoch in turn."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from ..backends.trace import trace
from ..bench.console import Failure, duration, progress, roughly, say, table

SIDES = ("ours", "torch")
SECONDS = 0.05  # that an epoch of both takes, on two cores


@dataclass
class Result:
    """What one network did on both sides."""

    example: ModuleType
    accuracy: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in SIDES})
    seconds: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in SIDES})
    kernels: list[str] = field(default_factory=list)

    @property
    def difference(self) -> float:
        """Largest difference of the two loss curves."""
        return max(abs(a - b) for a, b in zip(*self.losses.values(), strict=True))

    @property
    def ratio(self) -> float:
        """How many times faster an epoch is on our kernels: median over the epochs, each against its neighbour."""
        return statistics.median(t / o for o, t in zip(*self.seconds.values(), strict=True))

    def misses(self) -> list[str]:
        """What falls short of the example's bounds, in words."""
        e, words = self.example, []
        if self.accuracy["ours"] < e.ACCURACY:
            words.append(f"{e.NAME}: test accuracy {self.accuracy['ours']:.4f} is below {e.ACCURACY}")
        if not self.difference <= e.AGREEMENT:
            words.append(f"{e.NAME}: the loss curves differ by {self.difference:.1e}, more than {e.AGREEMENT:.0e}")
        return words


def train(example: ModuleType, epochs: int, seed: int, tick: Any) -> Result:
    """Train both sides from the same weights and batch orders; `tick` is called after every epoch."""
    x, y, x_test, y_test = example.data()
    trainers = {}
    for side, make in zip(SIDES, (example.ours, example.stock), strict=True):
        torch.manual_seed(seed)
        trainers[side] = example.Trainer(make())
    # one epoch of throw-away networks warms both sides up, and its launches tell which kernels run
    result = Result(example)
    with trace() as launches:
        example.Trainer(example.ours()).epoch(x, y, torch.arange(len(x)))
    result.kernels = list(dict.fromkeys(f"{launch.backend} {launch.kernel}" for launch in launches))
    example.Trainer(example.stock()).epoch(x, y, torch.arange(len(x)))
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for side in SIDES if epoch % 2 == 0 else reversed(SIDES):
            start = time.perf_counter()
            loss = trainers[side].epoch(x, y, order)
            result.seconds[side].append(time.perf_counter() - start)
            result.losses[side].append(loss)
        tick(result)
    result.accuracy = {side: trainers[side].accuracy(x_test, y_test) for side in SIDES}
    return result


def show(results: list[Result]) -> None:
    """The closing table."""
    rows = []
    for r in results:
        ours, theirs = (duration(statistics.median(r.seconds[s])) for s in SIDES)
        rows.append((
            f"{r.example.NAME} ({r.example.DATA})",
            f"{r.accuracy['ours']:.4f} / {r.accuracy['torch']:.4f}",
            f"{r.example.ACCURACY}",
            ours,
            theirs,
            f"{r.ratio:.2f}",
            f"{r.difference:.1e}",
            f"{r.example.AGREEMENT:.0e}",
        ))  # fmt: skip
    columns = (
        "network", ">accuracy, ours / torch", ">at least", ">epoch, ours", ">epoch, torch.nn", ">times faster",
        ">loss difference", ">at most",
    )  # fmt: skip
    table(f"trained side by side, {torch.get_num_threads()} threads, torch {torch.__version__}", columns, rows)
    table("kernels that ran", ("network", "kernels"), [(r.example.NAME, ", ".join(r.kernels)) for r in results])


def run(epochs: int | None, seed: int) -> None:
    """Train, print, and judge.

    Raises:
        Failure: scikit-learn is missing; accuracy or agreement misses its bound.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise Failure("the demo needs scikit-learn's data sets: pip install neurokern[demo]") from None
    from ..examples import mlp, perceptron

    examples = [(e, e.EPOCHS if epochs is None else epochs) for e in (perceptron, mlp)]
    say(f"{len(examples)} networks, trained on both sides: {roughly(5 + SECONDS * sum(n for _, n in examples))}")
    results, stopped = [], False
    try:
        _train_all(examples, seed, results)
    except KeyboardInterrupt:
        stopped = True
    if results:
        show(results)
    if stopped:
        raise Failure(f"interrupted after {len(results)} of {len(examples)} networks", 130)
    words = [w for r in results for w in r.misses()]
    if words:
        raise Failure("; ".join(words))
    say("Accuracy and agreement meet their targets.", "green")


def _train_all(examples: list[tuple[ModuleType, int]], seed: int, results: list[Result]) -> None:
    """Train each network on both sides, under a bar of its epochs; results are added as they come."""
    with progress() as bars:
        for example, count in examples:
            bar = bars.add_task(f"{example.NAME} on {example.DATA}", total=count, status="")

            def tick(r: Result, bar: int = bar) -> None:
                bars.update(bar, status=f"loss {r.losses['ours'][-1]:.4f} ours, {r.losses['torch'][-1]:.4f} torch")
                bars.advance(bar)

            results.append(train(example, count, seed, tick))
