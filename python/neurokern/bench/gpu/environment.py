"""What a machine with a GPU has: one line of JSON, appended to a file. Runs as a script, before anything is built.

environment.py FILE
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "numpy", "scikit-build-core", "pybind11", "pytest", "pytest-xdist", "hypothesis", "rich",
            "typer", "transformers")  # fmt: skip
TOOLS = ("nvcc", "cmake", "ninja", "make", "g++", "git", "ccache", "ncu", "compute-sanitizer", "cuobjdump")
CARD = ("name", "compute_cap", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "clocks.max.sm",
        "clocks.max.mem", "power.draw", "power.limit", "temperature.gpu", "persistence_mode", "mig.mode.current",
        "ecc.mode.current")  # fmt: skip
OF_TORCH = (
    "name", "major", "minor", "uuid", "total_memory", "multi_processor_count", "L2_cache_size",
    "regs_per_multiprocessor", "shared_memory_per_block_optin", "shared_memory_per_multiprocessor",
)  # fmt: skip


def said(*command: str) -> str | None:
    """What a command prints, or None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def version(package: str) -> str | None:
    """Of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def card() -> dict[str, str]:
    """What nvidia-smi says, field by field where it does not know them all."""
    query = "--format=csv,noheader", "--id=0"
    whole = said("nvidia-smi", f"--query-gpu={','.join(CARD)}", *query)
    if whole is not None and whole.count(",") == len(CARD) - 1:
        return dict(zip(CARD, (w.strip() for w in whole.split(",")), strict=True))
    alone = {name: said("nvidia-smi", f"--query-gpu={name}", *query) for name in CARD}
    return {name: words for name, words in alone.items() if words is not None}


def seen_by_torch() -> dict[str, Any]:
    """The GPU as torch sees it."""
    try:
        import torch
    except ImportError as error:
        return {"error": str(error)}
    found: dict[str, Any] = {"version": torch.__version__, "cuda": torch.version.cuda, "gpu": torch.cuda.is_available()}
    if not found["gpu"]:
        return found
    try:
        p = torch.cuda.get_device_properties(0)
    except RuntimeError as error:
        return found | {"error": str(error)}
    return found | {name: str(getattr(p, name)) for name in OF_TORCH if hasattr(p, name)}


def nvcc() -> dict[str, str | None]:
    """The compiler that the build takes, and its version."""
    finder = Path(__file__).resolve().parents[4] / "cmake" / "nvcc.py"
    path = (said(sys.executable, str(finder), "find") or "").partition("\n")[0] or None
    found = re.search(r"release [\d.]+, V([\d.]+)", said(path, "--version") or "") if path else None
    return {"path": path, "version": found[1] if found else None}


def facts() -> dict[str, Any]:
    """All of it."""
    return {
        "environment": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rehearsal": os.environ.get("NEUROKERN_REHEARSAL") == "1",
        "nvidia_smi": card(),
        "torch": seen_by_torch(),
        "nvcc": nvcc(),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "packages": {name: version(name) for name in PACKAGES},
        "tools": {name: shutil.which(name) for name in TOOLS},
        "commit": said("git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"),
    }


def main(path: str) -> None:
    line = facts()
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
    smi, torch = line["nvidia_smi"], line["torch"]
    print(f"{smi.get('name')}, capability {smi.get('compute_cap')}, driver {smi.get('driver_version')}; "
          f"torch {torch.get('version')} ({'sees' if torch.get('gpu') else 'sees no'} GPU); "
          f"nvcc {line['nvcc']['version']}; {line['cores']} cores")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
