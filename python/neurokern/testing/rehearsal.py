"""The one switch of a rehearsal: `make gpu` on a machine without a GPU.

Under NEUROKERN_REHEARSAL=1 the emulator takes the GPU's place: what would run on CUDA tensors runs in
`neurokern.emulate()` on CPU tensors, and Triton's kernels in its interpreter. No time that it measures means anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..backends import emulation
from ..backends.choice import BACKENDS, backend, emulate


def rehearsed() -> bool:
    """Whether the emulator takes the GPU's place."""
    return os.environ.get("NEUROKERN_REHEARSAL") == "1"


def on_gpu() -> bool:
    """Whether there is a GPU that torch can use, or what takes its place."""
    return rehearsed() or torch.cuda.is_available()


def place(device: str) -> str:
    """Where the tensors of a device are."""
    return "cpu" if rehearsed() else device


def missing() -> str | None:
    """Why the CUDA kernels can't run on torch's tensors here, or None."""
    if rehearsed():
        return emulation.missing()
    return BACKENDS["cuda"].missing() if torch.cuda.is_available() else "torch sees no GPU"


def driver() -> str:
    """The library with the driver's functions."""
    return str(emulation.LIBRARY) if rehearsed() else "libcuda.so.1"


def lost() -> str:
    """What happened to the GPU, if torch can't use it in this process any more; else nothing."""
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


@contextmanager
def in_force(name: str, device: str = "cuda") -> Iterator[None]:
    """Within the block the backend of that name runs what is on the device."""
    emulated = rehearsed() and device == "cuda" and name in ("auto", "cuda")
    with emulate() if emulated else backend(name):
        yield
