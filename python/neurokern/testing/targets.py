"""Where a kernel can run: as users call it, on each instruction set of the CPU; on each backend by name; CUDA's kernels
on the emulator."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .. import _C
from ..backends import emulation
from ..backends.choice import BACKENDS, emulate
from ..backends.fall_back import strict
from . import rehearsal
from .spec import Sample

LEVELS = ("scalar", "avx2", "avx512", "avx512bf16")


@dataclass(frozen=True)
class Target:
    """A backend or the automatic choice, for the CPU an instruction set, and for CUDA whether its kernels are emulated.

    `few`: the samples that are chosen for it (`Sample.chosen`) are enough, for most of its way is another target's.
    """

    backend: str
    level: str = ""
    emulated: bool = False
    few: bool = False

    @property
    def id(self) -> str:
        return "-".join(part for part in (self.backend, self.level, "emulated" * self.emulated) if part)

    @property
    def device(self) -> str:
        """Where its tensors live."""
        if self.backend == "triton":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return rehearsal.place("cuda") if self.backend == "cuda" and not self.emulated else "cpu"

    @property
    def runs(self) -> str:
        """The backend that the trace names."""
        return "cpu" if self.backend == "auto" else self.backend

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on the GPU, or on what takes its place in a rehearsal."""
        return (self.backend == "cuda" and not self.emulated) or (self.backend == "triton" and rehearsal.on_gpu())

    @property
    def interpreted(self) -> bool:
        """Whether a call costs a thousand times what it should."""
        return self.backend in ("cuda", "triton") and self.device == "cpu"

    def takes(self, sample: Sample, order: int = 1) -> bool:
        """Whether a sample of the first order, or of a higher, is worth its time here."""
        return not (self.interpreted and sample.heavy) and (sample.chosen or order > 1 or not self.few)

    def missing(self) -> str | None:
        """Why it can't run here, or None."""
        if self.level and LEVELS.index(self.level) > LEVELS.index(_C.cpu_detected()):
            return f"this machine has only {_C.cpu_detected()}"
        if self.emulated:
            return emulation.missing() or (None if _C.cuda_info()["fatbins"] else "built without the CUDA kernels")
        if self.backend == "cuda":
            return rehearsal.missing()
        return None if self.backend == "auto" else BACKENDS[self.backend].missing()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within the block, ops run here or raise: a call that is handed to torch is an error."""
        before = _C.cpu_level()
        if self.level:
            _C.set_cpu_level(self.level)
        try:
            with strict(), emulate() if self.emulated else rehearsal.in_force(self.backend):
                yield
        finally:
            _C.set_cpu_level(before)


def targets() -> tuple[Target, ...]:
    """All of them, also those that can't run here (see `Target.missing`): users' own call in full."""
    best = _C.cpu_detected()
    return (
        *(Target("auto", level, few=level != best) for level in LEVELS),
        Target("cpu", best, few=True),
        Target("cuda"),
        Target("cuda", emulated=True),
        Target("triton", few=not torch.cuda.is_available()),  # the interpreter takes a second for a microsecond
    )


def interpret_without_gpu() -> None:
    """Let Triton's kernels run in its interpreter when there is no GPU; call before anything imports triton."""
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
