"""The record of launches that ``neurokern.trace()`` shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .. import _C
from .context import block
from .emulation import COUNTERS


@dataclass(frozen=True)
class Launch:
    """One launch, as ``neurokern.trace()`` shows it."""

    op: str
    backend: str
    kernel: str
    plan: str = ""
    reason: str = ""
    counters: dict[str, int] | None = field(default=None, compare=False)  # what the emulator counted
    seconds: float | None = field(default=None, compare=False)  # of trace(times=True)


class _Log(_C.TraceLog):
    """The extension's side of a `TraceList`."""

    rows: TraceList


class TraceList(list):
    """A list of launches that fetches what the extension has recorded before it is read."""

    def __init__(self, times: bool) -> None:
        super().__init__()
        self.log = _Log(times)
        self.log.rows = self

    def collect(self) -> None:
        for *texts, seconds, counted in self.log.take():
            counters = None if counted is None else dict(zip(COUNTERS, counted, strict=True))
            self.append(Launch(*texts, seconds=seconds, counters=counters))

    def __iter__(self) -> Iterator[Launch]:
        self.collect()
        return super().__iter__()

    def __len__(self) -> int:
        self.collect()
        return super().__len__()

    def __getitem__(self, index: Any) -> Any:
        self.collect()
        return super().__getitem__(index)


@contextmanager
def trace(*, times: bool = False) -> Iterator[list[Launch]]:
    """Record every launch inside the block: yields a list of `Launch`, filled as the block runs.

    The list has the launches of the thread or task that enters the block, and those of backward passes through what
    was computed in it, in any thread. Blocks nest: an inner block's launches are in the outer list, too.

    Args:
        times: also measure each launch, in ``Launch.seconds``: on CUDA by waiting for it, which slows a program down.
    """
    outer, mine = _C.running_log(), TraceList(times)
    if outer is not None:
        outer.rows.collect()
    with block(log=mine.log):
        try:
            yield mine
        finally:
            mine.collect()
    if outer is not None:
        outer.rows.collect()
        outer.rows.extend(mine)


def record(op: str, backend_name: str, kernel: str, plan: str = "", reason: str = "", seconds: float = -1.0) -> None:
    """Add a launch that the extension did not make itself; ``seconds`` below zero: not measured."""
    _C.trace_record(op, backend_name, kernel, plan, reason, seconds)


record._dynamo_marked_constant = True  # type: ignore[attr-defined]  # dynamo calls it, as it traces


@contextmanager
def timed(op: str, backend_name: str, kernel: str, plan: str = "", reason: str = "") -> Iterator[None]:
    """`record` what the block does, measured where the trace wants times."""
    if not _C.trace_times():
        record(op, backend_name, kernel, plan, reason)
        yield
        return
    start = time.perf_counter()
    yield
    record(op, backend_name, kernel, plan, reason, time.perf_counter() - start)
