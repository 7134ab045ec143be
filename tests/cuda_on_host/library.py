"""Compiles the CUDA kernels of the activation family, their plans and launchers for the CPU, and loads them.

The kernels are the ones of ``kernels/cuda``, word for word; only the wrappers of inline PTX are replaced. Blocks run
one after the other and the threads of a block as fibers, so this finds wrong indices, barriers that some threads miss
and wrong arithmetic. It says nothing about races between threads, nor about speed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KERNELS = (
    "activation/unary",
    "activation/gated",
    "activation/prelu",
    "elementwise/finish",
    "matmul/bias_backward",
    "softmax/rows",
    "softmax/inner",
)
HOSTS = (
    "activation/cuda",
    "activation/prelu_cuda",
    "cuda/columns",
    "cuda/elementwise",
    "matmul/bias_backward_cuda",
    "softmax/cuda",
)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # in the order of nk::DType


class FlatView(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 12),
        ("stride", ctypes.c_int64 * 12),
    )


def _sources() -> list[Path]:
    folders = ("kernels/cuda", "kernels/math", "csrc", "tests/cuda_on_host")
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in (".h", ".cu", ".cpp")]
    return sorted([*files, *(ROOT / "kernels").glob("*.h")])


def _compile(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("kernels", "csrc"):
            shutil.copytree(ROOT / name, tree / name)
        shutil.copy(HERE / "cvt.h", tree / "kernels/cuda/ptx/cvt.h")
        kernels = [tree / f"kernels/cuda/{k}.cu" for k in KERNELS]
        hosts = [tree / f"csrc/{h}.cpp" for h in HOSTS]
        sources = [*kernels, *hosts, HERE / "harness.cpp", HERE / "plans.cpp"]
        flags = [
            "-std=c++20",
            "-O1",
            "-fPIC",
            "-w",
            f"-I{tree}",
            f"-I{tree / 'csrc'}",
            f"-I{HERE}",
            "-include",
            "cuda.h",
        ]

        def one(source: Path) -> str:
            out = str(tree / f"{source.parent.name}_{source.stem}.{source.suffix[1:]}.o")
            command = [os.environ.get("CXX", "g++"), *flags, "-x", "c++", "-c", str(source), "-o", out]
            subprocess.run(command, check=True, capture_output=True, text=True)
            return out

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(one, sources))
        library = tree / "library.so"
        linker = [os.environ.get("CXX", "g++"), "-shared", "-o", str(library), *objects, "-ldl"]
        subprocess.run(linker, check=True, capture_output=True, text=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}")
        shutil.copy(library, fresh)
        os.replace(fresh, target)  # whole or not at all, also with several test processes


@cache
def load() -> ctypes.CDLL:
    """The library, compiled when its sources are new."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.read_bytes())
    target = ROOT / "build" / f"cuda_on_host_{digest.hexdigest()[:16]}.so"
    if not target.exists():
        try:
            _compile(target)
        except subprocess.CalledProcessError as e:
            raise RuntimeError(e.stderr) from e
    library = ctypes.CDLL(str(target), mode=ctypes.RTLD_GLOBAL)  # kernels are found by name
    for name in ("take_report", "elementwise_plan", "column_plan", "softmax_plan"):
        getattr(library, name).restype = ctypes.c_char_p
    library.fast_divide.restype = ctypes.c_uint32
    return library


def _flat(t: torch.Tensor) -> FlatView:
    v = FlatView(t.data_ptr(), DTYPES.index(t.dtype), t.dim())
    v.shape[: t.dim()], v.stride[: t.dim()] = list(t.shape), list(t.stride())
    return v


def run(op: str, tensors: list, act: int = 0, p: tuple = (0.0, 0.0), dim: int = 0, multiprocessors: int = 2) -> str:
    """Runs one op on CPU tensors (None where it takes none); returns its launches as text."""
    library = load()
    views = [None if t is None else _flat(t) for t in tensors]
    pointers = (ctypes.POINTER(FlatView) * len(views))(*(None if v is None else ctypes.pointer(v) for v in views))
    code = library.run_op(
        op.encode(), pointers, len(views), act, ctypes.c_double(p[0]), ctypes.c_double(p[1]), dim, multiprocessors
    )
    report = library.take_report().decode()
    if code:
        raise RuntimeError(report)
    return report
