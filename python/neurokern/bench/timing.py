"""Timing two callables against each other so that a noisy machine does not decide.

A sample is as many calls as take about a millisecond, each on the next of several buffer sets. Samples of the two
alternate, and which goes first alternates too; the ratio is the median of the ratios of neighbouring samples, so that
a slow spell of the machine falls on both sides of one pair and cancels. Both make equally many calls: the first of a
sample finds the other side's data in the cache, and must not weigh more on one side than on the other.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

Call = Callable[[], object]
#: sides that differ by no more than this make equally many calls; beyond it, the slower one would take all the time
MOST_APART = 8


@dataclass(frozen=True)
class Effort:
    """How long to measure one case.

    Attributes:
        pairs: samples of each side, when time allows.
        sample: seconds that one sample lasts at least.
        budget: seconds after which no further pair is begun.
    """

    pairs: int = 15
    sample: float = 1e-3
    budget: float = 2.0


FULL = Effort()
QUICK = Effort(pairs=7, sample=5e-4, budget=0.5)


@dataclass
class Paired:
    """Seconds per call of both sides, pair by pair.

    Attributes:
        timer: how they were measured: "clock", "events" around the calls, or a "graph" of them, replayed.
        no_graph: why a graph could not be made.
        eager: seconds per plain call of both, where the pairs are those of graphs.
    """

    ours: list[float]
    theirs: list[float]
    timer: str = "clock"
    no_graph: str | None = None
    eager: tuple[float, float] | None = None

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours was, pair by pair."""
        return [t / o for o, t in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def medians(self) -> tuple[float, float]:
        """Of both sides."""
        return statistics.median(self.ours), statistics.median(self.theirs)

    def extend(self, more: Paired) -> None:
        """Add further pairs of the same case."""
        self.ours += more.ours
        self.theirs += more.theirs


def spread(values: Sequence[float]) -> float:
    """Interquartile range; 0 for fewer than three values."""
    if len(values) < 3:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


class _Clock:
    """Seconds per call of some calls in a row: wall time on the CPU, events on CUDA."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"

    def __call__(self, calls: Sequence[Call]) -> float:
        if self._cuda:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            for call in calls:
                call()
            last.record()
            last.synchronize()
            return first.elapsed_time(last) * 1e-3 / len(calls)
        start = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - start) / len(calls)


class Side(Protocol):
    """One of two that are compared: `count` says how much of it makes a sample."""

    count: int

    def sample(self) -> float:
        """Seconds per call."""

    def calibrate(self, seconds: float) -> None:
        """Set `count` so that a sample lasts that long."""


class _Side:
    """Plain calls, one per buffer set, and how many of them make a sample."""

    def __init__(self, calls: Sequence[Call], clock: _Clock, turn: itertools.count) -> None:
        self._calls, self._clock, self._turn = calls, clock, turn
        self.count = 1

    def sample(self) -> float:
        """Seconds per call; the buffer sets go on from where the last sample of either side ended."""
        n = len(self._calls)
        return self._clock([self._calls[next(self._turn) % n] for _ in range(self.count)])

    def calibrate(self, seconds: float) -> None:
        """Find how many calls last that long; one slow sample (page faults, a stranger) does not settle it."""
        while (took := min(self.sample(), self.sample()) * self.count) < seconds and self.count < 100_000:
            self.count = min(100_000, max(2 * self.count, int(1.2 * self.count * seconds / max(took, 1e-8))))


def paired(
    ours: Sequence[Call], theirs: Sequence[Call], device: str = "cpu", effort: Effort = FULL, warm: bool = True
) -> Paired:
    """Time two sides in turn.

    Args:
        ours, theirs: calls without arguments, one per buffer set; several where the cache shall not hold the data.
        device: ``"cpu"`` or ``"cuda"``.
        effort: how long. At least three pairs; one, where a pair alone takes the budget.
        warm: whether to run each side once, untimed, before.
    """
    clock, turn = _Clock(device), itertools.count()
    found = in_turns([_Side(calls, clock, turn) for calls in (ours, theirs)], effort, warm)
    found.timer = "events" if device == "cuda" else "clock"
    return found


def in_turns(sides: Sequence[Side], effort: Effort, warm: bool = True) -> Paired:
    """Samples of the two sides in turn; `paired` says how many."""
    found = Paired([], [])
    enabled = gc.isenabled()
    gc.disable()
    try:
        first = [side.sample() for side in sides] if warm else [0.0, 0.0]
        # a first call may be slow by chance (the machine was elsewhere): only one far beyond the budget settles it
        if sum(first) > 4 * effort.budget:
            return Paired(first[:1], first[1:])
        deadline = time.perf_counter() + effort.budget
        for side in sides:
            side.calibrate(effort.sample)
        most = max(side.count for side in sides)
        for side in sides:
            side.count = min(most, MOST_APART * side.count)
        for i in range(effort.pairs):
            if i >= (1 if sum(first) > effort.budget else 3) and time.perf_counter() > deadline:
                break
            times = [0.0, 0.0]
            for k in (0, 1) if i % 2 == 0 else (1, 0):
                times[k] = sides[k].sample()
            found.ours.append(times[0])
            found.theirs.append(times[1])
    finally:
        if enabled:
            gc.enable()
    return found


def seconds_per_call(call: Call, device: str, budget: float) -> float:
    """The best sample within the budget: for peaks, which noise can only lower."""
    side = _Side([call], _Clock(device), itertools.count())
    side.calibrate(1e-3)
    best, deadline = side.sample(), time.perf_counter() + budget
    while time.perf_counter() < deadline:
        best = min(best, side.sample())
    return best
