"""What compilers write for sm_90 runs: a pipeline over tensor maps by Triton, clusters and bulk copies by nvcc."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import TensorMap, emulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
]

TRITON = """
import sys
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def kernel(a, b, out, n, M: tl.constexpr, N: tl.constexpr):
    row = tl.program_id(0) * M
    sums = tl.zeros([M, N], tl.float32)
    for i in tl.range(0, n, num_stages=3):
        sums += a.load([row, i * N]) * b.load([row, i * N])
    out.store([row, 0], sums)


@triton.jit
def doubled(x, out, rows, columns, M: tl.constexpr, N: tl.constexpr):
    # the descriptors are made by the kernel itself
    row = tl.program_id(0) * M
    from_x = tl.make_tensor_descriptor(x, shape=[rows, columns], strides=[columns, 1], block_shape=[M, N])
    to_out = tl.make_tensor_descriptor(out, shape=[rows, columns], strides=[columns, 1], block_shape=[M, N])
    for i in tl.range(0, tl.cdiv(columns, N), num_stages=2):
        to_out.store([row, i * N], from_x.load([row, i * N]) * 2)


tile = "tensordesc<fp32[16,32]>"
if sys.argv[1] == "kernel":
    types = {"a": tile, "b": tile, "out": tile, "n": "i32", "M": "constexpr", "N": "constexpr"}
    source = ASTSource(kernel, signature=types, constexprs={(4,): 16, (5,): 32})
else:
    types = {"x": "*fp16", "out": "*fp16", "rows": "i32", "columns": "i32", "M": "constexpr", "N": "constexpr"}
    attributes = {(k,): [["tt.divisibility", 16]] for k in (0, 1)} | {(3,): [["tt.divisibility", 8]]}
    source = ASTSource(doubled, signature=types, constexprs={(4,): 16, (5,): 64}, attrs=attributes)
compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
print(compiled.metadata.shared)
print(compiled.asm["ptx"])
"""


def compiled_by_triton(name: str, folder: Path) -> tuple[int, str]:
    """Bytes of shared memory, and PTX. Another process compiles: in this one Triton may be its interpreter."""
    pytest.importorskip("triton")
    (folder / "kernels.py").write_text(TRITON)
    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, folder / "kernels.py", name]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    shared, ptx = run.stdout.split("\n", 1)
    assert "cp.async.bulk.tensor.2d" in ptx
    return int(shared), ptx


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    return compiled_by_triton("kernel", tmp_path_factory.mktemp("triton"))


def test_tritons_own_descriptors(tmp_path: Path, seed: int) -> None:
    """Tensor maps that the kernel writes to its scratch memory."""
    shared, ptx = compiled_by_triton("doubled", tmp_path)
    assert "tensormap.replace" in ptx
    rows, columns, blocks = 40, 136, 3
    x = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float16)
    out, scratch = np.zeros_like(x), np.zeros(256 * blocks, np.uint8)
    arguments = [x, out, rows, columns, scratch, 0]
    emulator().launch(ptx, arguments, grid=(blocks, 1, 1), block=(128, 1, 1), shared=shared, name="doubled")
    assert out.tolist() == (2 * x).tolist()


@pytest.mark.parametrize("shuffle", range(6))
def test_tritons_pipeline(pipeline: tuple[int, str], shuffle: int, seed: int) -> None:
    """A loop over tiles in three stages, fed by tensor maps and mbarriers; a tensor map stores its result, too."""
    shared, ptx = pipeline
    generator, blocks, steps = np.random.default_rng(seed), 3, 7
    a, b = (generator.integers(-8, 9, (16 * blocks, 32 * steps)).astype(np.float32) for _ in range(2))
    out = np.full((16 * blocks, 32), np.nan, np.float32)
    arguments = []
    for x in (a, b, out):
        rows, columns = x.shape
        map_ = TensorMap(x, 7, [columns, rows], [4 * columns], [32, 16], swizzle=3)
        arguments += [map_, rows, columns, columns, 1]
    emulation.set_option("shuffle", shuffle)
    try:
        emulator().launch(ptx, [*arguments, steps, 0, 0], grid=(blocks, 1, 1), block=(128, 1, 1), shared=shared)
    finally:
        emulation.set_option("shuffle", 0)
    assert out.tolist() == (a * b).reshape(16 * blocks, steps, 32).sum(1).tolist()


SOURCE = """
#include <cooperative_groups.h>
#include <cuda/ptx>
namespace cg = cooperative_groups;
namespace ptx = cuda::ptx;

extern "C" __global__ void __cluster_dims__(4, 1, 1) histogram(int* out, const int* in, long n) {
    extern __shared__ int bins[];
    cg::cluster_group cluster = cg::this_cluster();
    for (int i = threadIdx.x; i < 32; i += blockDim.x) bins[i] = 0;
    cluster.sync();
    for (long i = cg::this_grid().thread_rank(); i < n; i += blockDim.x * gridDim.x) {
        const int bin = in[i] & 127;
        atomicAdd(cluster.map_shared_rank(bins, bin / 32) + bin % 32, 1);
    }
    cluster.sync();
    for (int i = threadIdx.x; i < 32; i += blockDim.x) atomicAdd(out + cluster.block_rank() * 32 + i, bins[i]);
}

extern "C" __global__ void doubled(int* out, const int* in) {
    __shared__ alignas(16) int tile[256];
    __shared__ uint64_t bar;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(&bar, 1);
        ptx::fence_proxy_async(ptx::space_shared);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::cp_async_bulk(ptx::space_cluster, ptx::space_global, tile, in + 256 * blockIdx.x, sizeof tile, &bar);
        ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta, ptx::space_shared, &bar, sizeof tile);
    }
    while (!ptx::mbarrier_try_wait_parity(&bar, 0)) {
    }
    for (int i = threadIdx.x; i < 256; i += blockDim.x) tile[i] *= 2;
    ptx::fence_proxy_async(ptx::space_shared);
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::cp_async_bulk(ptx::space_global, ptx::space_shared, out + 256 * blockIdx.x, tile, sizeof tile);
        ptx::cp_async_bulk_commit_group();
        ptx::cp_async_bulk_wait_group_read(ptx::n32_t<0>());
    }
}
"""


@pytest.fixture(scope="module")
def compiled(nvcc: Callable[[str, str], str]) -> str:
    return nvcc(SOURCE, "sm_90a")


class TestNvcc:
    def test_a_histogram_in_distributed_shared_memory(self, compiled: str, seed: int) -> None:
        data = np.random.default_rng(seed).integers(0, 1000, 5000).astype(np.int32)
        out = np.zeros(128, np.int32)
        emulator().launch(compiled, [out, data, 5000], name="histogram", grid=(8, 1, 1), block=(64, 1, 1), shared=128)
        assert out.tolist() == np.bincount(data & 127, minlength=128).tolist()

    def test_bulk_copies(self, compiled: str) -> None:
        x, out = np.arange(1024, dtype=np.int32), np.zeros(1024, np.int32)
        emulator().launch(compiled, [out, x], name="doubled", grid=(4, 1, 1), block=(96, 1, 1))
        assert out.tolist() == (2 * x).tolist()
