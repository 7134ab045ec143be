"""Compiles the plans of csrc/plan, which are pure functions, for tests to call."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def _compiled(source: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "plans.so"
        command = [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-fPIC", "-shared", f"-I{ROOT}", f"-I{ROOT}/csrc"]
        command += ["-o", str(target), str(HERE / source)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return ctypes.CDLL(str(target))


@cache
def load() -> ctypes.CDLL:
    """The CUDA plans; a second to compile, so once for each process."""
    library = _compiled("rows_and_elements.cpp")
    for name in ("elementwise_plan", "column_plan", "softmax_plan"):
        getattr(library, name).restype = ctypes.c_char_p
    library.fast_divide.restype = ctypes.c_uint32
    return library


@cache
def load_stores() -> ctypes.CDLL:
    """Which stores of the CPU go past its caches."""
    return _compiled("stores.cpp")


def load_threads() -> ctypes.CDLL:
    """How many threads share a piece of work on the CPU."""
    return _compiled("threads.cpp")


@cache
def load_attention() -> ctypes.CDLL:
    """How attention of few queries is divided on CUDA."""
    return _compiled("attention.cpp")
