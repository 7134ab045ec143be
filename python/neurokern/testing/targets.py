"""Where a kernel can run: each backend, on the CPU each instruction set, and CUDA's kernels on the emulator."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .. import _C
from ..backends import emulation
from ..backends.choice import BACKENDS, backend, emulate

LEVELS = ("scalar", "avx2", "avx512", "avx512bf16")


@dataclass(frozen=True)
class Target:
    """A backend, for the CPU one of its instruction sets, and for CUDA whether its kernels are emulated."""

    backend: str
    level: str = ""
    emulated: bool = False

    @property
    def id(self) -> str:
        return "-".join(part for part in (self.backend, self.level, "emulated" * self.emulated) if part)

    @property
    def device(self) -> str:
        """Where its tensors live."""
        if self.backend == "triton":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return "cpu" if self.emulated else self.backend

    @property
    def interpreted(self) -> bool:
        """Whether a call costs a thousand times what it should."""
        return self.emulated or (self.backend == "triton" and self.device == "cpu")

    def missing(self) -> str | None:
        """Why it can't run here, or None."""
        if self.level and LEVELS.index(self.level) > LEVELS.index(_C.cpu_detected()):
            return f"this machine has only {_C.cpu_detected()}"
        if self.emulated:
            return emulation.missing() or (None if _C.cuda_info()["fatbins"] else "built without the CUDA kernels")
        if self.backend == "cuda" and not torch.cuda.is_available():
            return "no GPU that torch can use"
        return BACKENDS[self.backend].missing()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within the block, ops run here or raise."""
        before = _C.cpu_level()
        if self.level:
            _C.set_cpu_level(self.level)
        try:
            with emulate() if self.emulated else backend(self.backend):
                yield
        finally:
            _C.set_cpu_level(before)


def targets() -> tuple[Target, ...]:
    """All of them, also those that can't run here (see `Target.missing`)."""
    return (
        *(Target("cpu", level) for level in LEVELS),
        Target("cuda"),
        Target("cuda", emulated=True),
        Target("triton"),
    )


def interpret_without_gpu() -> None:
    """Let Triton's kernels run in its interpreter when there is no GPU; call before anything imports triton."""
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
