"""The emulator in the place of CUDA's driver: which library it is, its options, what it counted."""

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


def record(on: bool) -> None:
    """Keep what each launch counts for `take()`, of whichever thread."""
    if missing() is None:
        take()
        set_option("record", int(on))


def take() -> list[Emulated]:
    """The launches since the last call, while they are recorded."""
    name, numbers = ctypes.create_string_buffer(512), (ctypes.c_uint64 * 64)()
    found = []
    while count := library().emuTakeLaunch(name, len(name), numbers, len(numbers)):
        n = list(numbers[:count])
        counters = dict(zip(COUNTERS, n[7:], strict=True))
        found.append(Emulated(name.value.decode(), tuple(n[:3]), tuple(n[3:6]), n[6], counters))
    return found
