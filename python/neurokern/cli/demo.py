"""``neurokern demo``: the example networks on our kernels and on torch.nn, in turn.

Each trains for an epoch, or for the `TURN` batches that an example names, before the other does.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..backends.trace import trace
from ..bench.console import Failure, duration, pick, progress, roughly, say, table

SIDES = ("ours", "torch")
START = 5.0  # seconds that imports, data and first calls take, on two cores


@dataclass(frozen=True)
class Measure:
    """What an example's test score is, and the bound that it is judged by."""

    name: str
    least: bool  # whether the bound is the least that is wanted, or the most
    bound: float

    @property
    def target(self) -> str:
        """The bound in words."""
        return f"at {'least' if self.least else 'most'} {self.bound}"

    def miss(self, score: float) -> str | None:
        """In words, what is wrong with a score that misses the bound; NaN does."""
        if score >= self.bound if self.least else score <= self.bound:
            return None
        return f"{self.name} {score:.4f} is {'below' if self.least else 'above'} {self.bound}"


#: files of `examples/`, in the order in which they train
NETWORKS = (
    "perceptron", "mlp", "convolutional_network", "residual_network", "denoising_autoencoder", "dcgan",
    "vision_transformer", "translator", "char_transformer",
)  # fmt: skip
#: by the name that the bound has in an example
MEASURES = {
    "ACCURACY": ("accuracy", True),
    "SCORE": ("inception score", True),
    "BITS": ("bits per character", False),
    "ERROR": ("mean square error", False),
}


def measure(example: ModuleType) -> Measure:
    """The measure whose bound the example names."""
    (found,) = (name for name in MEASURES if hasattr(example, name))
    return Measure(*MEASURES[found], getattr(example, found))


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
    picture: torch.Tensor | None = None

    def step(self, side: str) -> float:
        """Seconds of a step: median over the turns."""
        return statistics.median(s / n for s, n in zip(self.seconds[side], self.batches, strict=True))

    @property
    def difference(self) -> float:
        """Largest difference of the two loss curves, as far as they are compared."""
        most = getattr(self.example, "COMPARED", math.inf)
        turns = sum(done <= most for done in accumulate(self.batches))
        return max(abs(a - b) for a, b in zip(*(self.losses[s][:turns] for s in SIDES), strict=True))

    @property
    def ratio(self) -> float:
        """How many times faster a turn is on our kernels: median over the turns, each against its neighbour."""
        return statistics.median(t / o for o, t in zip(*self.seconds.values(), strict=True))

    def misses(self) -> list[str]:
        """What falls short of the example's bounds, in words."""
        e, words = self.example, []
        if (miss := measure(e).miss(self.scores["ours"])) is not None:
            words.append(f"{e.NAME}: test {miss}")
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
    if hasattr(example, "picture"):
        result.picture = example.picture(trainers["ours"].model)
    return result


def show(results: list[Result]) -> None:
    """The closing table."""
    rows = []
    for r in results:
        e, ours, theirs = r.example, *(r.scores[s] for s in SIDES)
        judged, compared = measure(e), getattr(e, "COMPARED", None)
        rows.append((
            f"{e.NAME} ({e.DATA})",
            judged.name,
            f"{ours:.4f} / {theirs:.4f}",
            judged.target,
            *(duration(r.step(s)) for s in SIDES),
            f"{r.ratio:.2f}",
            f"{r.difference:.1e}",
            f"{e.AGREEMENT:.0e}" + (f", {compared} batches" if compared else ""),
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


def save(results: list[Result], folder: Path) -> None:
    """Write the pictures of what the networks made, one PNG each, named as the example's file."""
    from ..examples import pictures

    for r in results:
        if r.picture is not None:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{r.example.__name__.rpartition('.')[2]}.png"
            pictures.save(file, r.picture)
            say(f"picture by the {r.example.NAME}: {file}")


def run(names: Sequence[str], epochs: int | None, seed: int, output: Path | None = None) -> None:
    """Train, print, and judge.

    Args:
        names: of the networks, as their files are called; none: all.
        output: folder for the pictures; none: no pictures are written.

    Raises:
        Failure: no network has that name; scikit-learn, or for pictures matplotlib, is missing; a score or agreement
            misses its bound.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise Failure("the demo needs scikit-learn's data sets: pip install neurokern[demo]") from None
    if output is not None and importlib.util.find_spec("matplotlib") is None:
        raise Failure("pictures need matplotlib: pip install neurokern[demo]")
    networks = {name: importlib.import_module(f"neurokern.examples.{name}") for name in NETWORKS}
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
    if output is not None:
        save(results, output)
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
