"""The real assembler, where there is one: what it refuses is no PTX, however well the emulator runs it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def find() -> str | None:
    """ptxas of the machine's toolkit, or else Triton's; NEUROKERN_PTXAS names another, or, empty, none."""
    if (given := os.environ.get("NEUROKERN_PTXAS")) is not None:
        return given or None
    places = [shutil.which("ptxas"), os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin/ptxas"]
    triton = importlib.util.find_spec("triton")
    if triton and triton.origin:
        inside = Path(triton.origin).parent / "backends/nvidia/bin"
        places += [str(inside / "ptxas-blackwell"), str(inside / "ptxas")]
    return next((p for p in places if p and Path(p).is_file()), None)


@lru_cache(maxsize=1024)
def complaint(ptx: str, arch: str = "sm_90a") -> str:
    """What the assembler says against a text; empty: nothing, or there is none that reads this version of PTX."""
    if find() is None:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        run = subprocess.run(
            [str(find()), f"-arch={arch}", "-O0", str(source), "-o", f"{folder}/kernel.cubin"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    said = run.stdout + run.stderr
    return "" if run.returncode == 0 or "Unsupported .version" in said else said
