"""The emulator in the place of CUDA's driver: which library it is, when the launcher uses it, what it counted."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .. import _C

LIBRARY = Path(_C.__file__).parent / "_emulator" / "libneurokern_emulator.so"
CLASSES = (
    "integer", "floating", "convert", "move", "memory", "async", "shuffle", "matrix", "barrier", "control",
)  # fmt: skip
COUNTERS = (
    *(f"{name} instructions" for name in CLASSES),
    "global bytes read", "global bytes written", "global sectors read", "global sectors written",
    "shared bytes", "bank conflicts", "async bytes", "barriers",
)  # fmt: skip


@dataclass(frozen=True)
class Emulated:
    """One launch of a kernel on the emulator."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    counters: dict[str, int]


class _State:
    depth: int = 0  # of emulate() blocks
    applied: bool = False  # the launcher uses the emulator
    recording: bool = False

    def __init__(self) -> None:
        self.options = {"memory": 1, "shared": 1, "global": 1, "count": 1, "threads": 0, "shuffle": 0}


state = _State()


def missing() -> str | None:
    """Why there is no emulator, or None."""
    return None if LIBRARY.exists() else f"built without the emulator ({LIBRARY.name})"


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """The library itself, for its options."""
    return ctypes.CDLL(str(LIBRARY))


def set_option(name: str, value: int) -> None:
    """Set one of the emulator's options (emulator/driver/device.cpp)."""
    if library().emuSetOption(name.encode(), value):
        raise ValueError(f"neurokern.emulate: no option {name!r}")


def set_options(options: dict[str, int]) -> None:
    """Those of the `emulate()` block that begins, or goes on."""
    for name, value in options.items():
        set_option(name, int(value))
    state.options = options


def record(on: bool) -> None:
    """Keep what each launch counts for `take()`."""
    if missing() is None:
        take()
        set_option("record", int(on))
        state.recording = on


def apply(backend: str) -> None:
    """Within `emulate()` the backend "cuda" launches on the emulator; the others do not."""
    wanted = state.depth > 0 and backend == "cuda"
    if wanted and not state.applied:
        _C.set_driver_library(str(LIBRARY))
    elif state.applied and not wanted:
        _C.set_driver_table(0)
    state.applied = wanted


def take() -> list[Emulated]:
    """The launches since the last call, while they are recorded."""
    if not state.recording:
        return []
    name, numbers = ctypes.create_string_buffer(512), (ctypes.c_uint64 * 64)()
    found = []
    while count := library().emuTakeLaunch(name, len(name), numbers, len(numbers)):
        n = list(numbers[:count])
        counters = dict(zip(COUNTERS, n[7:], strict=True))
        found.append(Emulated(name.value.decode(), tuple(n[:3]), tuple(n[3:6]), n[6], counters))
    return found
