"""Backends: a row of data each, and the choice among them.

One asked for by name runs or raises; ``auto`` is that of the tensors' device. The extension reads, checks and
allocates for all of them, and then runs its own kernels or calls the functions of `neurokern.backends.triton`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

import torch

from .. import _C
from . import emulation


@dataclass(frozen=True)
class Backend:
    """A row of the registry: its name, and why it can't run here (or None)."""

    name: str
    missing: Callable[[], str | None]


def _triton_missing() -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        return "no GPU, and TRITON_INTERPRET is not 1"
    return None


def _cuda_missing() -> str | None:
    info = _C.cuda_info()
    if info["driver"] is None or not info["devices"]:
        return info["reason"] or "no CUDA device"
    return None if info["fatbins"] else "built without the CUDA kernels"


BACKENDS: dict[str, Backend] = {
    b.name: b
    for b in (Backend("cpu", lambda: None), Backend("cuda", _cuda_missing), Backend("triton", _triton_missing))
}


class _State:
    chosen = "auto"


state = _State()


class backend:
    """Choose the backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"triton"``.

    ``neurokern.backend("triton")`` sets it for the process; ``with neurokern.backend("triton"):`` for a block.

    Raises:
        ValueError: no backend has that name.
        RuntimeError: it can't run here (no GPU, not built, package missing).
    """

    def __init__(self, name: str) -> None:
        if name != "auto" and name not in BACKENDS:
            names = ", ".join(["auto", *BACKENDS])
            raise ValueError(f"neurokern.backend: name is {name!r}, expected one of {names}")
        self._previous = state.chosen
        _choose(name)

    def __enter__(self) -> backend:
        return self

    def __exit__(self, *exc: object) -> None:
        _choose(self._previous)


def _choose(name: str) -> None:
    emulation.apply(name)
    why = None if name == "auto" else BACKENDS[name].missing()
    if why is not None:
        emulation.apply(state.chosen)
        raise RuntimeError(f"neurokern.backend: {name} can't run here: {why}")
    _C.set_backend(name, _triton() if name == "triton" else None)
    state.chosen = name


def _triton() -> ModuleType:
    return importlib.import_module("neurokern.backends.triton")


@contextmanager
def emulate(*, check: bool = True, count: bool = True, threads: int = 0, shuffle: int = 0) -> Iterator[None]:
    """Within the block the backend is "cuda", and its kernels run on the CPU, from their PTX, on CPU tensors.

    Args:
        check: look for accesses out of bounds, memory that was never written or whose copy has not arrived, races
            and divergence; what is found raises RuntimeError with kernel, source line, block and thread.
        count: sectors and bank conflicts, too, for ``trace()``.
        threads: how many, or 0 for all cores.
        shuffle: a seed that permutes the order of blocks and warps; 0: as they are numbered.

    Raises:
        RuntimeError: this build has no emulator, or the processor lacks what it needs.
    """
    if (why := emulation.missing()) is not None:
        raise RuntimeError(f"neurokern.emulate: {why}")
    options = dict.fromkeys(("memory", "shared", "global"), check)
    options |= {"count": count, "threads": threads, "shuffle": shuffle}
    outer = emulation.state.options
    emulation.set_options(options)
    emulation.state.depth += 1
    before = state.chosen
    try:
        _choose("cuda")
        yield
    finally:
        emulation.state.depth -= 1
        emulation.set_options(outer)
        _choose(before)
