"""The CUDA matmul kernels' own source, run on the CPU: end to end from `_C.matmul` over plan, launch and kernel.

`kernels/cuda/ptx/` is replaced by tests/cuda_host/ptx, which states in C++ what the PTX ISA says of each instruction:
fragment layouts, ldmatrix, cp.async that copies as late as its groups allow and poisons what it will overwrite, bank
conflicts counted. Blocks and threads run as coroutines. What this can't tell is how fast anything is, nor whether the
machine code does what the source says.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import neurokern
import pytest
import torch
from neurokern import _C

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / "tests" / "cuda_host"

pytestmark = [
    pytest.mark.slow,
]


def _compile(folder: Path) -> Path:
    """The kernels as a shared library; one object file per .cu, two at a time."""
    tree = folder / "kernels"
    shutil.copytree(ROOT / "kernels", tree, ignore=shutil.ignore_patterns("triton", "cpu", "activation", "softmax"))
    for header in (HOST / "ptx").glob("*.h"):
        shutil.copy(header, tree / "cuda" / "ptx")
    for source in (tree / "cuda").rglob("*.*"):
        source.write_text(source.read_text().replace("extern __shared__ __align__(1024) char", "extern char"))
    for name in ("runtime.h", "runtime.cpp"):
        shutil.copy(HOST / name, folder)
    units = [folder / "runtime.cpp"]
    for i, fatbin in enumerate(sorted(set(_C.matmul_kernels().values()))):
        source = tree / "cuda" / "matmul" / f"{fatbin.removeprefix('matmul_')}.cu"
        unit = folder / f"unit{i}.cpp"
        unit.write_text(f'#include "runtime.h"\n#include "{source}"\n')
        units.append(unit)
    shutil.copy(HOST / "call.cpp", folder)
    units.append(folder / "call.cpp")
    compiler = os.environ.get("CXX", "g++")
    # __CUDACC__ makes kernels/math.h write its functions for nvcc's qualifiers, which runtime.h defines away.
    flags = [
        "-std=c++20",
        "-O1",
        "-fPIC",
        "-w",
        "-D__CUDACC__",
        f"-I{folder}",
        f"-I{ROOT}",
        "-fno-strict-aliasing",
        "-mfma",
    ]
    pending = [
        subprocess.Popen([compiler, *flags, "-c", str(unit), "-o", str(unit.with_suffix(".o"))], stderr=subprocess.PIPE)
        for unit in units
    ]
    for process in pending:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()[:4000]
    library = folder / "libcuda_host.so"
    objects = [str(unit.with_suffix(".o")) for unit in units]
    subprocess.run([compiler, "-shared", "-o", str(library), *objects, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ctypes.CDLL]:
    """A driver whose device is this CPU, in the place of CUDA's."""
    folder = tmp_path_factory.mktemp("cuda_host")
    library = ctypes.CDLL(str(_compile(folder)), mode=ctypes.RTLD_GLOBAL)
    library.cuda_host_table.restype = ctypes.c_void_p
    library.cuda_host_bank_conflicts.restype = ctypes.c_long
    fatbins = folder / "fatbins"
    fatbins.mkdir()
    for fatbin in set(_C.matmul_kernels().values()):
        (fatbins / f"{fatbin}.fatbin").write_bytes(b"the host's table does not read it")
    before = _C.cuda_info()["kernel_dir"]
    _C.set_kernel_dir(str(fatbins))
    _C.set_driver_table(library.cuda_host_table())
    yield library
    _C.set_driver_table(0)
    _C.set_kernel_dir(before)


def draw(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> torch.Tensor:
    """Random numbers laid out as `layout` says: n as written, t transposed, s in steps of 2, o off by one."""
    *batch, rows, columns = shape
    numbers = torch.randn(*batch, rows, columns, generator=generator, dtype=torch.float64).to(dtype)
    if layout == "n":
        return numbers.contiguous()
    if layout == "t":
        return numbers.mT.contiguous().mT
    if layout == "s":
        wide = torch.full((*batch, rows, 2 * columns), float("nan"), dtype=dtype)
        wide[..., ::2] = numbers
        return wide[..., ::2]
    flat = torch.full((numbers.numel() + 1,), float("nan"), dtype=dtype)
    flat[1:] = numbers.reshape(-1)
    return flat[1:].view(shape)


ROUNDOFF = {torch.float64: 2**-53, torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def check(out: torch.Tensor, want: torch.Tensor, k: int, context: object, multiply: float = 0.0) -> None:
    """One rounding to the result's dtype, of a sum of k products of normal numbers, `multiply` wrong each.

    A chain of k additions passes partial sums of the size sqrt(i), each rounded with a standard deviation of
    unit/sqrt(3): unit k/sqrt(6) in all. Six such deviations are allowed to walks that stray thrice as far as the mean
    in square, and for the epilogue eight units of a result's size.
    """
    unit = ROUNDOFF[torch.float64 if out.dtype is torch.float64 else torch.float32]
    chain = 6 * 3**0.5 * k / 6**0.5 + 8 * (1 + k**0.5)
    bound = 1.01 * ROUNDOFF[out.dtype] * want.abs() + unit * chain + multiply * 4 * max(k, 1) ** 0.5
    worst = ((out.double() - want).abs() / bound).max().item()
    assert worst <= 1, (worst, context)


# (m, n, k), layouts of a and b, batch, what the epilogue does, what this case is for
CASES = [
    ((128, 256, 128), "nt", (), "", "whole tiles"),
    ((200, 300, 72), "nn", (), "bias", "ragged m, n and k, rows of b in 8-byte steps"),
    ((200, 300, 72), "tn", (), "bias gelu", "a transposed"),
    ((136, 264, 80), "tt", (), "residual", "both transposed, aligned, ragged tiles"),
    ((129, 65, 33), "nt", (), "bias relu preact", "odd sizes: single elements"),
    ((67, 131, 50), "oo", (), "", "operands off by one element"),
    ((40, 72, 36), "ss", (), "", "no contiguous dimension"),
    ((16, 256, 1024), "nt", (), "bias silu", "few rows, k split"),
    ((1, 100, 600), "nn", (), "", "one row"),
    ((64, 64, 2048), "tn", (), "bias residual preact", "k split, finished by the reduction"),
    ((33, 40, 24), "nt", (3,), "bias", "a batch"),
    ((20, 24, 16), "nn", (2, 1, 3, 2, 2, 2), "residual", "more batch dimensions than kernels decode"),
    ((48, 48, 0), "nn", (), "bias", "k = 0: the epilogue of zero"),
    ((1, 1, 1), "nn", (), "", "one element"),
]


@pytest.mark.parametrize("dtype", list(ROUNDOFF), ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=lambda c: c[-1].replace(" ", "_").replace(",", "").replace(":", ""))
def test_matmul(device: ctypes.CDLL, case: tuple, dtype: torch.dtype) -> None:
    (m, n, k), layouts, batch, epilogue, why = case
    g = torch.Generator().manual_seed(zlib.crc32(why.encode()))
    a, b = draw(g, (*batch, m, k), dtype, layouts[0]), draw(g, (*batch, k, n), dtype, layouts[1])
    bias = torch.randn(n, generator=g).to(dtype) if "bias" in epilogue else None
    residual = torch.randn(*batch, m, n, generator=g).to(dtype) if "residual" in epilogue else None
    out = torch.full((*batch, m, n), float("nan"), dtype=dtype)
    preact = torch.full_like(out, float("nan")) if "preact" in epilogue else None
    names = re.findall("relu|gelu|silu", epilogue) or ["identity"]
    with neurokern.trace() as launches:
        _C.matmul(out, a, b, bias, residual, preact, _C.ACTIVATIONS[names[0]], 0.0, 0.0, 0.75, 0.5)
    kernel, plan = launches[0].kernel, launches[0].plan
    v = 0.75 * (a.double() @ b.double())
    if bias is not None:
        v = v + bias.double()
    want = v if names[0] == "identity" else getattr(torch.nn.functional, names[0])(v)
    if residual is not None:
        want = want + 0.5 * residual.double()
    check(out, want, k, (why, kernel, plan))
    if preact is not None:
        check(preact, v, k, (why, kernel, plan))
    assert device.cuda_host_bank_conflicts() == 0, (why, kernel, plan)


@pytest.mark.parametrize("layouts", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("size", [(128, 128, 64), (130, 70, 36), (70, 65, 33)], ids=str)
def test_tf32(device: ctypes.CDLL, layouts: str, size: tuple[int, int, int]) -> None:
    """Under precision "high" f32 runs on the tensor cores, with operands rounded to tf32."""
    m, n, k = size
    g = torch.Generator().manual_seed(m)
    a, b = draw(g, (m, k), torch.float32, layouts[0]), draw(g, (k, n), torch.float32, layouts[1])
    out = torch.full((m, n), float("nan"))
    torch.set_float32_matmul_precision("high")
    try:
        with neurokern.trace() as launches:
            _C.matmul(out, a, b, None, None, None, 0, 0.0, 0.0, 1.0, 1.0)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert "tf32" in launches[0].kernel
    check(out, a.double() @ b.double(), k, launches[0].plan, multiply=2**-10)
    assert device.cuda_host_bank_conflicts() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_transposed_output(device: ctypes.CDLL, dtype: torch.dtype) -> None:
    """An output with contiguous columns is computed as its transpose, bias and residual with it."""
    g = torch.Generator().manual_seed(3)
    a, b, bias = (torch.randn(*s, generator=g).to(dtype) for s in [(96, 40), (40, 72), (72,)])
    residual = torch.randn(96, 72, generator=g).to(dtype)
    out = torch.full((72, 96), float("nan"), dtype=dtype).mT
    _C.matmul(out, a, b, bias, residual, None, 0, 0.0, 0.0, 1.0, 1.0)
    want = a.double() @ b.double() + bias.double() + residual.double()
    check(out, want, 40, dtype)


@pytest.mark.parametrize("dtype", list(ROUNDOFF), ids=str)
@pytest.mark.parametrize("size", [(70, 41, 40), (1, 41, 40), (64, 41, 2048)], ids=str)
def test_results_within_wider_memory(
    device: ctypes.CDLL, size: tuple[int, int, int], dtype: torch.dtype, seed: int
) -> None:
    """Rows of 41 that lie 48 apart are stored in wide pieces, of which the last would reach past the row."""
    m, n, k = size
    g = torch.Generator().manual_seed(seed)
    a, b, residual = draw(g, (m, k), dtype, "n"), draw(g, (k, n), dtype, "n"), draw(g, (m, 48), dtype, "n")[:, :n]
    backing = [torch.full((m, 48), float("nan"), dtype=dtype) for _ in range(2)]
    out, preact = (t[:, :n] for t in backing)
    with neurokern.trace() as launches:
        _C.matmul(out, a, b, None, residual, preact, 0, 0.0, 0.0, 1.0, 1.0)
    product = a.double() @ b.double()
    check(preact, product, k, (seed, launches[0].plan))
    check(out, product + residual.double(), k, (seed, launches[0].plan))
    assert all(t[:, n:].isnan().all() for t in backing), (launches[0].plan, "wrote past its rows")


def _tensor_core_kernels() -> list[str]:
    return [name for name in _C.matmul_kernels() if "reduce" not in name]


@pytest.mark.parametrize("kernel", _tensor_core_kernels())
def test_each_kernel(device: ctypes.CDLL, kernel: str) -> None:
    """Every kernel a plan can name, on whole and on ragged tiles, with k long enough to turn the ring over twice."""
    element, layout = re.match(r"matmul_(?:mma|simt|plain)_(\w+?)(?:_(nn|nt|tn|tt))?(?:_\d+x\d+)?$", kernel).groups()
    names = {"bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}
    dtype = names.get(element, torch.float32)
    torch.set_float32_matmul_precision("high" if element == "tf32" else "highest")
    _C.matmul_only(kernel)
    try:
        for m, n, k in [(256, 256, 512), (129 if "128x" in kernel else 70, 270, 200)]:
            g = torch.Generator().manual_seed(k)
            a, b = draw(g, (m, k), dtype, (layout or "nt")[0]), draw(g, (k, n), dtype, (layout or "nt")[1])
            bias = torch.randn(n, generator=g).to(dtype)
            out = torch.full((m, n), float("nan"), dtype=dtype)
            with neurokern.trace() as launches:
                _C.matmul(out, a, b, bias, None, None, 0, 0.0, 0.0, 1.0, 1.0)
            assert launches[0].kernel == kernel
            want = a.double() @ b.double() + bias.double()
            check(out, want, k, launches[0].plan, multiply=2**-10 if element == "tf32" else 0.0)
            assert device.cuda_host_bank_conflicts() == 0
    finally:
        _C.matmul_only("")
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    "kernel", ["matmul_plain_f16", "matmul_simt_f32_64x64", "matmul_mma_f64_64x64", "matmul_mma_bf16_nn_64x64"]
)
def test_more_batches_than_a_grid_is_deep(device: ctypes.CDLL, kernel: str) -> None:
    """65535 entries fill blockIdx.z; a second launch takes the rest, and only that one is run here."""
    dtype = {"f16": torch.float16, "f32": torch.float32, "f64": torch.float64}.get(kernel.split("_")[2], torch.bfloat16)
    g = torch.Generator().manual_seed(5)
    a, b = draw(g, (65538, 2, 3), dtype, "n"), draw(g, (65538, 3, 2), dtype, "n")
    out = torch.full((65538, 2, 2), float("nan"), dtype=dtype)
    _C.matmul_only(kernel)
    device.cuda_host_run_at_most(ctypes.c_uint64(60000))
    try:
        _C.matmul(out, a, b, None, None, None, 0, 0.0, 0.0, 1.0, 1.0)
    finally:
        device.cuda_host_run_at_most(ctypes.c_uint64(2**64 - 1))
        _C.matmul_only("")
    assert out[:65535].isnan().all(), "the second launch wrote what is the first one's"
    check(out[65535:], a[65535:].double() @ b[65535:].double(), 3, kernel)
