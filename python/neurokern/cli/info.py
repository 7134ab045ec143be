"""``neurokern info``: what this machine and this build offer."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path

import torch

from .. import _C, __version__
from ..backends.choice import BACKENDS
from ..bench.console import table

CPU_LEVELS = ("scalar", "avx2", "avx512", "avx512bf16")


def cuda_kernels() -> str:
    """One line: which CUDA kernels this build has, or that it has none."""
    found = _C.cuda_info()
    if not found["fatbins"]:
        return "none: no nvcc was found when this was built (see CONTRIBUTING, or NEUROKERN_CUDA)"
    return f"{len(found['fatbins'])} files by nvcc {found['nvcc']} ({', '.join(found['fatbins'])})"


def gpus() -> list[tuple[str, str]]:
    """A line for each: its name, compute capability, and why our kernels don't run there, if they don't."""
    rows = []
    for i, device in enumerate(_C.cuda_info()["devices"]):
        major, minor = device["capability"]
        state = f"unavailable: {device['missing']}" if device["missing"] else "ready"
        rows.append((f"GPU {i}", f"{device['name']} ({major}.{minor}), {state}"))
    return rows


def resources() -> str | None:
    """What the compiler said of registers and spills, in one line; None without CUDA kernels."""
    path = Path(_C.cuda_info()["kernel_dir"]) / "resources.json"
    if not path.is_file():
        return None
    rows = [row for file in json.loads(path.read_text()).values() for row in file]
    if not rows:
        return None
    spills = sum(row["spill_stores"] + row["spill_loads"] > 0 for row in rows)
    most = max(row["registers"] for row in rows)
    arches = ", ".join(sorted({row["arch"] for row in rows}))
    return f"{len(rows)} kernels for {arches}; at most {most} registers; {spills or 'none'} with spills"


def facts() -> list[tuple[str, str]]:
    """All that `info` prints, in order."""
    highest = _C.cpu_detected()
    levels = CPU_LEVELS[: CPU_LEVELS.index(highest) + 1] if highest in CPU_LEVELS else (highest,)
    rows = [
        ("neurokern", __version__),
        ("Python", platform.python_version()),
        ("torch", torch.__version__),
        ("triton", _version_of("triton")),
        ("processor", _C.cpu_model().strip()),
        ("CPU kernels", f"{_C.cpu_level()} (this machine has {', '.join(levels)}; choose with NEUROKERN_CPU_LEVEL)"),
        ("CPU threads", f"{_C.cpu_threads()} (torch.set_num_threads)"),
    ]
    for b in BACKENDS.values():
        why = b.missing()
        rows.append((f"backend {b.name}", "ready" if why is None else f"unavailable: {why}"))
    rows += gpus()
    rows.append(("CUDA kernels", cuda_kernels()))
    used = resources()
    return rows if used is None else [*rows, ("CUDA resources", used)]


def _version_of(package: str) -> str:
    if importlib.util.find_spec(package) is None:
        return "not installed"
    return importlib.metadata.version(package)


def run() -> None:
    """Print it."""
    table("neurokern", ["item", "value"], facts())
