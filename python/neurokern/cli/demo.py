"""``neurokern demo``: the example networks on our kernels and on torch.nn, in turn.

Each trains for an epoch, or for the `TURN` batches that an example with long epochs names, before the other does.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from ..backends.trace import trace
from ..bench.console import Failure, duration, pick, progress, roughly, say, table

SIDES = ("ours", "torch")
START = 5.0  # seconds that imports, data and first calls take, on two cores


@dataclass
class Result:
    """What one network did on both sides."""

    example: ModuleType
    scores: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in SIDES})
    seconds: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in SIDES})
    batches: list[int] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    sample: str = ""

    def step(self, side: str) -> float:
        """Seconds of a step: median over the turns."""
        return statistics.median(s / n for s, n in zip(self.seconds[side], self.batches, strict=True))

    @property
    def difference(self) -> float:
        """Largest difference of the two loss curves."""
        return max(abs(a - b) for a, b in zip(*self.losses.values(), strict=True))

    @property
    def ratio(self) -> float:
        """How many times faster a turn is on our kernels: median over the turns, each against its neighbour."""
        return statistics.median(t / o for o, t in zip(*self.seconds.values(), strict=True))

    def misses(self) -> list[str]:
        """What falls short of the example's bounds, in words."""
        e, words = self.example, []
        score, least, most = self.scores["ours"], getattr(e, "ACCURACY", None), getattr(e, "BITS", None)
        if least is not None and not score >= least:
            words.append(f"{e.NAME}: test accuracy {score:.4f} is below {least}")
        if most is not None and not score <= most:
            words.append(f"{e.NAME}: {score:.4f} bits per character are more than {most}")
        if not self.difference <= e.AGREEMENT:
            words.append(f"{e.NAME}: the loss curves differ by {self.difference:.1e}, more than {e.AGREEMENT:.0e}")
        return words


def turns(example: ModuleType, samples: int, epochs: int, seed: int) -> list[torch.Tensor]:
    """The samples that each side trains on before the other does: an epoch's, or those of `TURN` batches."""
    orders = [
        torch.randperm(samples, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for epoch in range(epochs)
    ]  # fmt: skip
    size = getattr(example, "TURN", samples) * example.BATCH
    return [part for order in orders for part in order.split(size)]


def train(example: ModuleType, epochs: int, seed: int, tick: Any) -> Result:
    """Train both sides from the same weights and batch orders; `tick` is called after every turn with their number."""
    x, y, x_test, y_test = example.data()
    trainers = {}
    for side, make in zip(SIDES, (example.ours, example.stock), strict=True):
        torch.manual_seed(seed)
        trainers[side] = example.Trainer(make())
    parts = turns(example, len(x), epochs, seed)
    # a turn of throw-away networks warms both sides up, and its launches tell which kernels run
    result = Result(example)
    with trace() as launches:
        example.Trainer(example.ours()).epoch(x, y, parts[0])
    result.kernels = list(dict.fromkeys(f"{launch.backend} {launch.kernel}" for launch in launches))
    example.Trainer(example.stock()).epoch(x, y, parts[0])
    for i, part in enumerate(parts):
        result.batches.append(math.ceil(len(part) / example.BATCH))
        for side in SIDES if i % 2 == 0 else reversed(SIDES):
            start = time.perf_counter()
            loss = trainers[side].epoch(x, y, part)
            result.seconds[side].append(time.perf_counter() - start)
            result.losses[side].append(loss)
        tick(result, len(parts))
    result.scores = {side: trainers[side].score(x_test, y_test) for side in SIDES}
    if hasattr(example, "sample"):
        result.sample = example.sample(trainers["ours"].model)
    return result


def show(results: list[Result]) -> None:
    """The closing table."""
    rows = []
    for r in results:
        e, ours, theirs = r.example, *(r.scores[s] for s in SIDES)
        bits = getattr(e, "BITS", None)
        rows.append((
            f"{e.NAME} ({e.DATA})",
            "accuracy" if bits is None else "bits per character",
            f"{ours:.4f} / {theirs:.4f}",
            f"at least {e.ACCURACY}" if bits is None else f"at most {bits}",
            *(duration(r.step(s)) for s in SIDES),
            f"{r.ratio:.2f}",
            f"{r.difference:.1e}",
            f"{e.AGREEMENT:.0e}",
        ))  # fmt: skip
    columns = (
        "network", "test score", ">ours / torch", ">target", ">step, ours", ">step, torch.nn", ">times faster",
        ">loss difference", ">at most",
    )  # fmt: skip
    table(f"trained side by side, {torch.get_num_threads()} threads, torch {torch.__version__}", columns, rows)
    table("kernels that ran", ("network", "kernels"), [(r.example.NAME, ", ".join(r.kernels)) for r in results])
    for r in results:
        if r.sample:
            say(f"\nby the {r.example.NAME} on our kernels:\n{r.sample}")


def run(names: Sequence[str], epochs: int | None, seed: int) -> None:
    """Train, print, and judge.

    Args:
        names: of the networks, as their files are called; none: all.

    Raises:
        Failure: no network has that name; scikit-learn is missing; a score or agreement misses its bound.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise Failure("the demo needs scikit-learn's data sets: pip install neurokern[demo]") from None
    from ..examples import char_transformer, mlp, perceptron, translator, vision_transformer

    networks = {
        e.__name__.rpartition(".")[2]: e for e in (perceptron, mlp, vision_transformer, translator, char_transformer)
    }
    chosen = [networks[pick("network", name, networks)] for name in names] or networks.values()
    examples = [(e, e.EPOCHS if epochs is None else epochs) for e in chosen]
    say(f"{len(examples)} networks, trained on both sides: {roughly(START + sum(e.SECONDS * n for e, n in examples))}")
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
    say("Scores and agreement meet their targets.", "green")


def _train_all(examples: list[tuple[ModuleType, int]], seed: int, results: list[Result]) -> None:
    """Train each network on both sides, under a bar of its turns; results are added as they come."""
    with progress() as bars:
        for example, count in examples:
            bar = bars.add_task(f"{example.NAME} on {example.DATA}", total=None, status="")

            def tick(r: Result, total: int, bar: int = bar) -> None:
                losses = f"loss {r.losses['ours'][-1]:.4f} ours, {r.losses['torch'][-1]:.4f} torch"
                bars.update(bar, total=total, status=losses)
                bars.advance(bar)

            results.append(train(example, count, seed, tick))
