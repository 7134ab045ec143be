"""Timing on a GPU: CUDA graphs of many calls, replayed, so that neither Python nor launches are in the time.

A graph has one call for each buffer set, and keeps their results, so that outputs rotate through memory as inputs do.
A case that can't be captured is timed by events around plain calls, on both sides, and its record says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import torch

from ..testing import rehearsal
from .timing import Call, Effort, Paired, Side, in_turns, paired

LEAST_CALLS = 16  # of a graph, whose own launch takes as long as a small kernel
MOST_SAMPLES = 20  # a graph lasts at most that many times as long as a sample has to


class Gpu:
    """What of the GPU timing needs; `Emulator` has it in a rehearsal."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Everything within the block is launched on one stream, from which graphs are captured."""
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.synchronize()

    def capture(self, calls: Sequence[Call], sets: int) -> Callable[[], None]:
        """One function that launches again what these calls launched.

        Args:
            sets: how many results are kept at once; the next call's takes the oldest one's memory.

        Raises:
            RuntimeError: a call did what no graph can do.
        """
        torch.cuda.synchronize()
        graph, kept = torch.cuda.CUDAGraph(), cast(list[object], [None] * sets)
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            for k, call in enumerate(calls):
                kept[k % sets] = None
                kept[k % sets] = call()
        except BaseException:
            with suppress(RuntimeError):  # the call's own error says more
                graph.capture_end()
            raise
        graph.capture_end()

        def replay(results: object = kept) -> None:  # its memory is the graph's
            graph.replay()

        replay()
        torch.cuda.synchronize()
        return replay

    def seconds(self, run: Callable[[], object]) -> float:
        """What the GPU took for it, by events."""
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) * 1e-3


class Emulator:
    """The same where the emulator is the GPU: a graph is the list of its calls."""

    @contextmanager
    def stream(self) -> Iterator[None]:
        yield

    def capture(self, calls: Sequence[Call], sets: int) -> Callable[[], None]:
        def replay() -> None:
            for call in calls:
                call()

        replay()
        return replay

    def seconds(self, run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start


def gpu() -> Gpu | Emulator:
    """The GPU, or what takes its place."""
    return Emulator() if rehearsal.rehearsed() else Gpu()


class _Graph:
    """A side of a comparison: a graph of calls, replayed `count` times for one sample."""

    def __init__(self, device: Gpu | Emulator, calls: Sequence[Call], sets: int) -> None:
        self._device, self._calls, self._replay = device, len(calls), device.capture(calls, sets)
        self.count = 1

    def sample(self) -> float:
        """Seconds per call."""

        def run() -> None:
            for _ in range(self.count):
                self._replay()

        return self._device.seconds(run) / (self.count * self._calls)

    def calibrate(self, seconds: float) -> None:
        """Find how many replays last that long."""
        took = min(self.sample(), self.sample()) * self._calls
        self.count = min(10_000, max(1, math.ceil(seconds / max(took, 1e-7))))


def graph_calls(sets: int, seconds: float, effort: Effort) -> int:
    """How many calls a graph has: each buffer set's; more where those are few and quick, fewer where they are slow."""
    return max(1, min(max(sets, LEAST_CALLS), math.ceil(MOST_SAMPLES * effort.sample / max(seconds, 1e-7))))


def paired_on_gpu(ours: Sequence[Call], theirs: Sequence[Call], device: Gpu | Emulator, effort: Effort) -> Paired:
    """Time two sides in turn on the GPU, within `device.stream()`.

    The result's `eager` are seconds per plain call of both: what a Python loop sees.
    """
    for side in (ours, theirs):  # first calls load modules, and a graph can't
        side[0]()
    brief = Effort(pairs=3, sample=effort.sample, budget=effort.budget / 4)
    where = "cpu" if isinstance(device, Emulator) else "cuda"
    plain = paired(ours, theirs, where, brief, warm=False)
    eager = plain.medians()
    n = graph_calls(len(ours), max(eager), effort)
    in_order = [[side[i % len(side)] for i in range(n)] for side in (ours, theirs)]
    try:
        sides: list[Side] = [_Graph(device, calls, len(ours)) for calls in in_order]
    except RuntimeError as error:
        found = paired(ours, theirs, where, effort, warm=False)
        found.timer, found.no_graph = "events", f"{type(error).__name__}: {error}".splitlines()[0][:300]
    else:
        found = in_turns(sides, effort)
        found.timer = "graph"
    found.eager = eager
    return found


def fastest_on_gpu(calls: Sequence[Call], device: Gpu | Emulator, budget: float) -> float:
    """Seconds per call of the best sample within the budget: for peaks."""
    calls[0]()
    side = _Graph(device, calls, len(calls))
    side.calibrate(1e-3)
    best, deadline = side.sample(), time.perf_counter() + budget
    while time.perf_counter() < deadline:
        best = min(best, side.sample())
    return best
