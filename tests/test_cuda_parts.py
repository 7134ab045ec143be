"""What the families' kernels are made of, kernels/cuda/tile and product, in other hands than matmul's: attention,
persistent blocks, mbarriers, warps that only copy. Kernels: tests/parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, altered, emulator
from torch import Tensor

ROOT = Path(__file__).parents[1]
FLAGS = ("-I", str(ROOT), "--expt-relaxed-constexpr", "-fmad=false", "-lineinfo")
pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.skipif(not (ROOT / "kernels").is_dir(), reason="not in a checkout"),
    pytest.mark.usefixtures("snippets"),
]
WITHIN = {torch.bfloat16: ("bf16", 2.0**-7, 1e-2), torch.float16: ("f16", 2.0**-10, 1e-2)}


@pytest.fixture(scope="module")
def parts(nvcc: Callable[..., str]) -> Callable[..., str]:
    """The PTX of a file in tests/parts."""

    @cache
    def compiled(name: str, architecture: str = "sm_80") -> str:
        return nvcc((ROOT / "tests" / "parts" / f"{name}.cu").read_text(), architecture, *FLAGS)

    return compiled


def bits(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.contiguous().view(torch.uint16).numpy())


def numbers(x: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(x.view(np.int16)).view(dtype).double()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize(("queries", "keys"), [(64, 64), (64, 192), (70, 130), (1, 1), (129, 63)])
def test_attention(parts: Callable[..., str], dtype: torch.dtype, queries: int, keys: int) -> None:
    """Keys advance along the outer index, values along k; each is waited for apart; P stays in registers."""
    q, k, v = (torch.randn(n, 64).to(dtype) for n in (queries, keys, keys))
    out = np.full((queries, 64), 0x7FFF, np.uint16)
    scale = int(np.float32(64**-0.5 * np.log2(np.e)).view(np.uint32))
    emulator().launch(
        parts("attention"), [out, bits(q), bits(k), bits(v), queries, keys, 64, scale], grid=(-(-queries // 64), 1, 1),
        block=(128, 1, 1), shared=5 * 64 * 64 * 2, name="attention_f16" if dtype is torch.float16 else "attention_bf16",
        within=WITHIN[dtype],
    )  # fmt: skip
    want = torch.softmax(q.double() @ k.double().T / 8, -1) @ v.double()
    # P and the result are rounded once each
    torch.testing.assert_close(numbers(out, dtype), want, rtol=2 * WITHIN[dtype][1], atol=4 * WITHIN[dtype][1])


@pytest.mark.emulator_only("the checkers are the emulator's")
def test_parts_are_waited_for(parts: Callable[..., str]) -> None:
    """A copy that is not waited for is seen: the test above would not pass by luck."""
    hasty = altered(parts("attention"), r"cp\.async\.wait_group 1;", "cp.async.wait_group 3;")
    x = [bits(torch.randn(64, 64).to(torch.bfloat16)) for _ in range(4)]
    with pytest.raises(DeviceError, match="an asynchronous copy is still on its way"):
        emulator().launch(hasty, [*x, 64, 64, 64, 0], block=(128, 1, 1), shared=5 * 64 * 64 * 2, name="attention_bf16")


def test_wrong_numbers_of_a_cache_reach_no_other_rows(parts: Callable[..., str]) -> None:
    """On a GPU the host sees neither lengths nor pages: what has no place is not written, what is read exists."""
    cache, rows = np.zeros((3, 8, 4), np.float32), np.arange(1, 21, dtype=np.float32).reshape(5, 4)
    table = np.array([[0, 9], [1, 2], [2, 1], [-4, 10**6], [3, 0]], np.int64)
    read = np.full((5, 2), -1, np.int64)
    emulator().launch(
        parts("cache"), [cache, rows, np.array([6, -9, 10**9, 2, 1]), table, read], block=(256, 1, 1),
        name="unchecked_numbers",
    )  # fmt: skip
    assert read.tolist() == [[0, 2], [1, 2], [2, 1], [0, 2], [2, 0]]
    assert (cache[0, 6] == rows[0]).all()
    cache[0, 6] = 0
    assert not cache.any()


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("schedule", ["persistent", "persistent_mbarriers", "specialized"])
@pytest.mark.parametrize(("m", "n", "k", "batches", "splits"), [
    (128, 192, 256, 1, 1), (70, 130, 96, 2, 1), (200, 65, 50, 1, 1), (65, 100, 37, 3, 1), (64, 128, 512, 2, 3),
    (70, 60, 0, 1, 1),
])  # fmt: skip
def test_schedules(
    parts: Callable[..., str], architecture: str, schedule: str, m: int, n: int, k: int, batches: int, splits: int
) -> None:
    """A block is told which tile to compute: three blocks take all in turn, and a ring goes on from one to the next."""
    ptx = parts("schedules", architecture)
    a, b = torch.randn(batches, m, k).bfloat16(), torch.randn(batches, n, k).bfloat16()
    out = np.full((batches, m, n), 0x7FFF, np.uint16)
    sums = np.full((splits, batches, m, -(-n // 4) * 4), np.nan, np.float32)
    one = bits(torch.zeros(1).bfloat16())
    work = -(-m // 64) * -(-n // 64) * splits * batches
    fills = schedule == "specialized"
    emulator().launch(
        ptx, [out, bits(a) if k else one, bits(b) if k else one.copy(), sums, m, n, k, batches, splits],
        grid=(work if fills else 3, 1, 1), block=(192 if fills else 128, 1, 1), shared=3 * 128 * 128 + 64,
        name=schedule, within=WITHIN[torch.bfloat16],
    )  # fmt: skip
    want = a.double() @ b.double().mT
    got = numbers(out, torch.bfloat16) if splits == 1 else torch.from_numpy(sums).double().sum(0)[..., :n]
    error = (got - want).abs()
    terms = a.double().abs() @ b.double().abs().mT
    assert (error <= (2.0**-8 if splits == 1 else 0) * want.abs() + 2.0**-20 * terms).all(), error.max()


APPROXIMATIONS = r"""
#include "kernels/cuda/ptx/approx.h"
#include "kernels/cuda/tile/reduce.h"
extern "C" __global__ void approximations(float* e, float* r, float* sums, float* tops, const float* x) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    e[i] = nk::ptx::ex2_approx(x[i]), r[i] = nk::ptx::rcp_approx(x[i]);
    sums[i] = nk::cuda::reduce_quad(x[i], nk::cuda::Add{}), tops[i] = nk::cuda::reduce_quad(x[i], nk::cuda::Max{});
}
"""


def test_approximations_and_quads(nvcc: Callable[..., str]) -> None:
    """2^x and 1 / x within two units in the last place, 0 below 2^-126; four lanes are reduced without a loop."""
    ptx = nvcc(APPROXIMATIONS, "sm_80", *FLAGS)
    assert "bra" not in ptx
    x = torch.linspace(-130, 129, 1024).float()[torch.randperm(1024)]
    x[:5] = torch.tensor([-torch.inf, torch.inf, 0.0, -0.0, 2.0**-127])
    outs = [np.zeros(1024, np.float32) for _ in range(4)]
    within = ("f32", 2.0**-22, 0.0)
    emulator().launch(ptx, [*outs, x.numpy()], grid=(8, 1, 1), block=(128, 1, 1), name="approximations", within=within)
    e, r, sums, tops = map(torch.from_numpy, outs)
    exact = torch.exp2(x.double())
    small = exact < 2.0**-126
    assert (e[small] == 0).all()
    torch.testing.assert_close(e[~small].double(), exact.float().double()[~small], rtol=2.0**-22, atol=0)
    assert r[:5].tolist() == [0, 0, torch.inf, -torch.inf, torch.inf]
    torch.testing.assert_close(r[5:].double(), 1 / x[5:].double(), rtol=2.0**-23, atol=0)
    quads = x[8:].view(-1, 4)
    torch.testing.assert_close(sums[8:].view(-1, 4), quads.sum(-1, keepdim=True).expand(-1, 4), rtol=1e-5, atol=1e-4)
    assert torch.equal(tops[8:].view(-1, 4), quads.amax(-1, keepdim=True).expand(-1, 4))
