"""What a record says of where it was measured, and the peaks that a speed is compared with."""

from __future__ import annotations

import itertools
import platform
import subprocess
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from .. import _C, __version__
from ..testing.rehearsal import place, rehearsed
from .graphs import Emulator, Gpu, fastest_on_gpu
from .timing import seconds_per_call

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}


@cache
def commit() -> str | None:
    """The commit of the checkout that runs, with ``+`` when files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@cache
def last_level_cache() -> int:
    """Bytes of the processor's largest cache (32 MiB where the system does not say)."""
    sizes = []
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = size.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1], 1)
        sizes.append(int(text.rstrip("KM")) * unit)
    return max(sizes, default=32 << 20)


def cache_bytes(device: str) -> int:
    """Bytes of the cache before a device's memory: the GPU's L2, or the processor's last one."""
    if device == "cuda" and not rehearsed():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return last_level_cache()


def describe(device: str) -> dict[str, Any]:
    """Machine and versions of a record."""
    machine: dict[str, Any] = {"cpu": _C.cpu_model().strip(), "level": _C.cpu_level(), "cores": _cores()}
    if device == "cuda" and rehearsed():
        machine["gpu"] = "none: a rehearsal on the emulator"
    elif device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
        machine["driver"] = _C.cuda_info()["driver"]
    versions = {"neurokern": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"machine": machine, "versions": versions, "commit": commit()}


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


class Peaks:
    """The fastest that this machine was seen to multiply and to copy, measured when first asked for.

    The rate of multiplications is that of the faster of the two libraries on one large square product; the
    bandwidth is torch's ``copy_`` over as many bytes as the case moves, so that a case in cache is compared with a copy
    in cache.
    """

    def __init__(self, device: str, gpu: Gpu | Emulator | None = None) -> None:
        self._device, self._place, self._gpu = device, place(device), gpu
        self._found: dict[tuple[Any, ...], float] = {}

    def flops(self, dtype: str, threads: int) -> float:
        """Floating-point operations a second."""
        key = ("flops", dtype, threads)
        if key not in self._found:
            n = 8192 if self._place == "cuda" else 1024
            self._found[key] = max(self._square(f, n, dtype) for f in self._products(dtype))
        return self._found[key]

    def _products(self, dtype: str) -> list[Any]:
        from .. import functional as F

        # torch's float16 product on the CPU runs a hundred times below the machine: only ours tells anything there
        if dtype == "f16" and self._device == "cpu":
            return [F.matmul]
        return [torch.matmul] if rehearsed() else [F.matmul, torch.matmul]

    def _square(self, product: Any, n: int, dtype: str) -> float:
        a, b = (torch.randn(n, n, device=self._place).to(DTYPES[dtype]) for _ in range(2))
        try:
            return 2 * n**3 / self._fastest([lambda: product(a, b)], 0.15)
        except RuntimeError:
            return 0.0

    def copy(self, size: float, threads: int) -> float:
        """Bytes a second, read and written, of a copy that moves about `size` bytes."""
        half = max(1 << 12, 1 << round(size / 2).bit_length() - 1)
        half = min(half, 1 << 28 if self._place == "cuda" else 1 << 26)
        key = ("copy", half, threads)
        if key not in self._found:
            sets = max(1, 2 * cache_bytes(self._device) // (2 * half)) if half > 1 << 20 else 1
            pairs = [
                (
                    torch.empty(half, dtype=torch.uint8, device=self._place),
                    torch.ones(half, dtype=torch.uint8, device=self._place),
                )
                for _ in range(min(sets, 64 if self._place == "cuda" else 16))
            ]
            self._found[key] = 2 * half / self._fastest([partial(to.copy_, source) for to, source in pairs], 0.05)
        return self._found[key]

    def _fastest(self, calls: list[Callable[[], object]], budget: float) -> float:
        if self._gpu is not None:
            return fastest_on_gpu(calls, self._gpu, budget)
        turn = itertools.count()
        return seconds_per_call(lambda: calls[next(turn) % len(calls)](), self._place, budget)


def stamp() -> str:
    """Now, in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
