"""The record of launches that ``neurokern.trace()`` shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from .. import _C
from . import emulation


@dataclass(frozen=True)
class Launch:
    """One launch, as ``neurokern.trace()`` shows it."""

    op: str
    backend: str
    kernel: str
    plan: str = ""
    reason: str = ""
    counters: dict[str, int] | None = field(default=None, compare=False)  # what the emulator counted


class _State:
    launches: list[Launch] | None = None  # of the innermost `trace()`


state = _State()


@contextmanager
def trace() -> Iterator[list[Launch]]:
    """Record every launch within the block: yields a list of `Launch`, filled as the block runs.

    Blocks nest: an inner block's launches belong to the outer list too.
    """
    outer, mine = state.launches, TraceList()
    if outer is not None:
        outer.collect()
    state.launches = mine
    _C.trace_start(True)
    emulation.record(True)
    try:
        yield mine
    finally:
        mine.collect()
        state.launches = outer
        if outer is None:
            _C.trace_start(False)
            emulation.record(False)
        else:
            outer.extend(mine)


def _launched(row: Launch) -> bool:
    """Whether a kernel ran for it on CUDA; an empty tensor has none."""
    return row.backend == "cuda" and row.plan != "empty"


def _with_counters(rows: list[Launch]) -> list[Launch]:
    """Each row with the sum of what the emulator counted for its kernel and for those that finish its work."""
    emulated = emulation.take()
    counted = []
    for i, row in enumerate(rows):
        following = next((r.kernel for r in rows[i + 1 :] if _launched(r)), None)
        mine = []
        while emulated and _launched(row) and not (mine and emulated[0].kernel == following):
            mine.append(emulated.pop(0).counters)
        total = {name: sum(c[name] for c in mine) for name in mine[0]} if mine else None
        counted.append(replace(row, counters=total))
    return counted


class TraceList(list):
    """A list of launches that fetches what the extension has recorded before it is read."""

    def collect(self) -> None:
        if state.launches is self:
            self.extend(_with_counters([Launch(*row) for row in _C.trace_take()]))

    def __iter__(self) -> Iterator[Launch]:
        self.collect()
        return super().__iter__()

    def __len__(self) -> int:
        self.collect()
        return super().__len__()

    def __getitem__(self, index: Any) -> Any:
        self.collect()
        return super().__getitem__(index)


def record(op: str, backend_name: str, kernel: str, plan: str = "", reason: str = "") -> None:
    """Add a launch that the extension did not make itself."""
    if state.launches is not None:
        state.launches.collect()
        list.append(state.launches, Launch(op, backend_name, kernel, plan, reason))
