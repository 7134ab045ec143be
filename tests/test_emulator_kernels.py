"""Every CUDA kernel that is built runs on the emulator at least once, under all checkers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
]

ROUNDOFF = {torch.float64: 2**-53, torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}
ENDINGS = {dtype: name for name, dtype in DTYPES.items()} | {torch.float32: "f32"}
OF_IMAGES = ("convolution_", "pool_", "unpool_", "rearrangement_", "resample_", "grid_sample_")


def products() -> list[str]:
    return [name for name in _C.matmul_kernels() if "reduce" not in name]


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    return x.mT.contiguous().mT if layout == "t" else x


@pytest.mark.parametrize("kernel", products())
def test_each_product(kernel: str, seed: int) -> None:
    """Whole and ragged tiles, k long enough to turn the ring over twice; no bank conflict in whole tiles."""
    element, layout = re.match(r"matmul_(?:mma|simt|plain)_(\w+?)(?:_(nn|nt|tn|tt))?(?:_\d+x\d+)?$", kernel).groups()
    dtype = DTYPES.get(element, torch.float32)
    g = torch.Generator().manual_seed(seed)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if element == "tf32" else "highest")
    _C.matmul_only(kernel)
    try:
        for m, n, k in [(128, 256, 256), (129 if "128x" in kernel else 70, 135, 100)]:
            a = laid_out(torch.randn(m, k, generator=g).to(dtype), (layout or "nt")[0])
            b = laid_out(torch.randn(k, n, generator=g).to(dtype), (layout or "nt")[1])
            bias = torch.randn(n, generator=g).to(dtype)
            with neurokern.emulate(), neurokern.trace() as launches:
                out = _C.linear(a, b.mT, bias, None)
            assert launches[0].kernel == kernel
            want = a.double() @ b.double() + bias.double()
            rounding = 2**-50 if dtype is torch.float64 else 2**-21
            error = ROUNDOFF[dtype] * want.abs() + rounding * k + (2**-10 if element == "tf32" else 0) * 4 * k**0.5
            assert ((out.double() - want).abs() <= 1.01 * error).all(), (launches[0].plan, seed)
            if "mma" in kernel and m == 128:
                assert launches[0].counters["bank conflicts"] == 0, launches[0].plan
    finally:
        _C.matmul_only("")
        torch.set_float32_matmul_precision(precision)


ROWS = [
    (3, 1),
    (40, 7),
    (5, 33),
    (4, 100),
    (3, 300),
    (2, 600),
    (2, 1000),
    (2, 1032),
    (1, 5000),
    (1, 20000),
    (1, 70000),
]


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=str)
def test_each_kernel_but_products(dtype: torch.dtype, seed: int) -> None:
    """Rows of every length class, along the last dimension and along the first."""
    g = torch.Generator().manual_seed(seed)
    ran = set()
    with neurokern.emulate(), neurokern.trace() as launches:
        for rows, length in ROWS:
            x = torch.randn(rows, length, generator=g).to(dtype).requires_grad_()
            w, bias = (torch.randn(length, generator=g).to(dtype).requires_grad_() for _ in range(2))
            F.layer_norm(x, (length,), w, bias).backward(torch.randn(x.shape, generator=g).to(dtype))
        for shape in ROWS:
            for dim, x in ((-1, torch.randn(shape, generator=g)), (0, torch.randn(shape[::-1], generator=g))):
                x = x.to(dtype).requires_grad_()
                y = F.softmax(x, dim)
                y.backward(torch.randn(y.shape, generator=g).to(dtype))
                want = torch.softmax(x.detach().double(), dim)
                error = (y.detach().double() - want).abs()
                bound = 8 * ROUNDOFF[dtype] * max(shape) ** 0.5 * want
                assert (error <= bound + torch.finfo(dtype).smallest_normal * ROUNDOFF[dtype]).all(), (shape, dim)
        for channels, shape in ((1, (7, 40)), (5, (9, 5, 6)), (64, (70, 64))):
            x = torch.randn(shape, generator=g).to(dtype).requires_grad_()
            w = torch.rand(channels, generator=g).to(dtype).requires_grad_()
            F.prelu(x, w).sum().backward()
            one = w.detach()[0].expand_as(x)
            gx, _ = _C.rrelu_backward(x.detach(), x.detach(), one, (True, False))
            assert torch.equal(gx, torch.where(x > 0, x, one * x).detach())
        x = torch.randn(50, 16, generator=g).to(dtype).requires_grad_()
        w, bias = (torch.randn(s, generator=g).to(dtype).requires_grad_() for s in ((24, 16), (24,)))
        F.gelu(F.linear(x, w, bias)).sum().backward()
        for f in (F.silu, F.tanh):
            (grad,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
            grad.sum().backward()
        F.glu(x, -1).sum().backward()
        F.linear(x, w, bias, activation="gelu").sum().backward()
        _C.uniform(torch.empty(1000, dtype=dtype), seed, 0, 0)
        sink = torch.randn(2, generator=g).to(dtype).requires_grad_()
        for size, more in ((8, {"cu_seqlens_q": torch.tensor([0, 4, 7]), "cu_seqlens_k": torch.tensor([0, 3, 7])}),
                           (300, {"bias": torch.randn(9, 9, generator=g).to(dtype).requires_grad_()})):  # fmt: skip
            q, k, v = (torch.randn(2, 9, size, generator=g).to(dtype).requires_grad_() for _ in range(3))
            F.attention(q, k, v, sink=sink, **more).sum().backward()
        cache = torch.zeros(1, 2, 20, 300, dtype=dtype)  # wider than the tensor cores' kernel
        q, new = (torch.randn(1, 2, 3, 300, generator=g).to(dtype) for _ in range(2))
        lengths = torch.tensor([13])
        with torch.no_grad():
            F.attention_with_kv_cache(q, cache, cache.clone(), new, new, cache_seqlens=lengths, num_splits=2)
        ran |= {entry.kernel for entry in launches}
    built = {k for k in built_for(dtype) if not k.startswith(OF_IMAGES)} - set(_C.matmul_kernels())
    # launched behind another, so not in the trace under their own names
    missing = built - ran - {f"elementwise_finish_{ENDINGS[dtype]}"}
    assert not missing, f"never launched: {sorted(missing)}"


def convolutions(make: Callable[..., torch.Tensor]) -> Iterator[torch.Tensor]:
    """Results of depthwise ones in both layouts, windows that no tile takes, padding that is read, and k in parts."""
    for last in (False, True):
        x = make(1, 16, 6, 7)
        x = x.to(memory_format=torch.channels_last) if last else x
        yield F.conv2d(x, make(16, 1, 3, 3), make(16), 1, 1, 1, 16)
    yield F.conv1d(make(1, 2, 50), make(3, 2, 31), make(3))
    yield F.conv2d(make(1, 8, 6, 6), make(8, 8, 3, 3), make(8), 1, 1, padding_mode="reflect")
    yield F.conv2d(make(1, 512, 3, 3), make(8, 512, 3, 3), None, 1, 1)


def others_of_images(make: Callable[..., torch.Tensor]) -> Iterator[torch.Tensor]:
    """Results of pools, rearrangements and interpolation."""
    yield F.avg_pool2d(make(1, 3, 8, 8), 3, 2)
    y, at = F.max_pool2d(make(1, 3, 8, 8), 2, return_indices=True)
    yield F.max_unpool2d(y, at, 2)
    yield F.pixel_shuffle(make(1, 8, 4, 4), 2)
    yield F.pad(make(1, 3, 5, 6), (2, 1, 1, 2), "reflect")
    yield F.fold(F.unfold(make(1, 3, 6, 6), 3), 6, 3)
    yield F.interpolate(make(1, 3, 5, 6), (7, 9), mode="bilinear")
    for mode, *size in (
        ("bilinear", 5, 6),
        ("bilinear", 3, 4, 5),
        ("nearest", 5, 6),
        ("nearest", 3, 4, 5),
        ("bicubic", 5, 6),
    ):
        yield F.grid_sample(make(1, 3, *size), make(1, *size, len(size)), mode, align_corners=False)


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=str)
def test_each_kernel_of_images(dtype: torch.dtype, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g).to(dtype).requires_grad_()

    with neurokern.emulate(), neurokern.trace() as launches:
        for results in (convolutions, others_of_images):
            for y in results(make):
                y.square().sum().backward()
    missing = {k for k in built_for(dtype) if k.startswith(OF_IMAGES)} - {entry.kernel for entry in launches}
    assert not missing, f"never launched: {sorted(missing)}"


def built_for(dtype: torch.dtype) -> set[str]:
    return {k for k in kernels_built() if k.endswith(f"_{ENDINGS[dtype]}")}


def kernels_built() -> set[str]:
    table = json.loads((Path(_C.cuda_info()["kernel_dir"]) / "resources.json").read_text())
    return {row["kernel"] for rows in table.values() for row in rows}
