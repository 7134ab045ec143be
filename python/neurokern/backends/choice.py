"""Backends: a row of data each, and the choice among them.

One asked for by name runs or raises; ``auto`` is that of the tensors' device. The extension reads, checks and
allocates for all of them, and then runs its own kernels or calls the functions of `neurokern.backends.triton`.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from .. import _C
from . import emulation
from .context import block, enter, leave, set_backend, set_process_backend


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
    return _C.cuda_info()["reason"] or None


def cuda_missing(index: int) -> str | None:
    """Why our kernels can't run on that CUDA device, or None."""
    return _C.cuda_missing(index) or None


BACKENDS: dict[str, Backend] = {
    b.name: b
    for b in (Backend("cpu", lambda: None), Backend("cuda", _cuda_missing), Backend("triton", _triton_missing))
}

_lock = threading.Lock()


class backend:
    """Choose the backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"triton"``.

    ``neurokern.backend("triton")`` sets it for the process, or until the end of the enclosing block; ``with
    neurokern.backend("triton"):`` for a block, in the thread or task that enters it.

    Raises:
        ValueError: no backend has that name.
        RuntimeError: it can't run here (no GPU, not built, package missing).
    """

    def __init__(self, name: str) -> None:
        if name != "auto" and name not in BACKENDS:
            names = ", ".join(["auto", *BACKENDS])
            raise ValueError(f"neurokern.backend: name is {name!r}, expected one of {names}")
        _check(name)
        self.name = name
        self._thread = threading.get_ident()
        self._outer: backend | None = None  # the process's choice before this one
        self._entered = False
        self._in_block = _C.in_block()
        self._before = ""
        if self._in_block:
            self._before = set_backend(name)
        else:
            _process.follow(self)

    def __enter__(self) -> backend:
        # only a statement sets it outside of its block
        if self._in_block:
            set_backend(self._before)
        else:
            _process.withdraw(self)
        self._block = enter(backend=self.name)
        return self

    def __exit__(self, *exc: object) -> None:
        leave(self._block)


class _Process:
    """The choice for the process: of the last statement, as far as those made since have turned out to be blocks'."""

    def __init__(self) -> None:
        self.last: backend | None = None

    def follow(self, choice: backend) -> None:
        with _lock:
            if self.last is not None and self.last._thread == choice._thread:
                self.last._outer = None  # it was a statement, which stays
            choice._outer, self.last = self.last, choice
            set_process_backend(choice.name)

    def withdraw(self, choice: backend) -> None:
        with _lock:
            choice._entered = True
            while self.last is not None and self.last._entered:
                self.last = self.last._outer
            set_process_backend("auto" if self.last is None else self.last.name)


_process = _Process()


def _check(name: str) -> None:
    why = None if name == "auto" else BACKENDS[name].missing()
    if why is not None:
        raise RuntimeError(f"neurokern.backend: {name} can't run here: {why}")
    if name == "triton":
        _C.set_triton(importlib.import_module("neurokern.backends.triton"))


@contextmanager
def emulate(*, check: bool = True, count: bool = True, threads: int = 0, shuffle: int = 0) -> Iterator[None]:
    """Inside the block the backend is "cuda", and its kernels run on the CPU, from their PTX, on CPU tensors.

    Args:
        check: detect accesses out of bounds, reads of uninitialized memory or before a copy has landed, races
            and divergence; each raises RuntimeError with kernel, source line, block and thread.
        count: sectors and bank conflicts, too, for ``trace()``.
        threads: number of CPU threads, or 0 for all cores.
        shuffle: a seed that permutes the order of blocks and warps; 0: in order.

    Raises:
        RuntimeError: this build has no emulator, or the processor lacks what it needs.
    """
    if (why := emulation.missing()) is not None:
        raise RuntimeError(f"neurokern.emulate: {why}")
    _C.load_stand_in(str(emulation.LIBRARY), "emuSetOption", "emuTakeLaunch")
    options = dict.fromkeys(("memory", "shared", "global"), check)
    options |= {"count": count, "threads": threads, "shuffle": shuffle}
    with block(backend="cuda", emulator=[(name, int(value)) for name, value in options.items()]):
        _check("cuda")
        yield
