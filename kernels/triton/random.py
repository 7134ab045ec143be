"""Random numbers by Philox's counters (``kernels/math/philox.h``), the same as on every other backend."""

from __future__ import annotations

import torch

import triton
import triton.language as tl

from ._common import Record, blocks, launch, store

BLOCK = 256
BITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


@triton.jit(do_not_specialize=["n", "seed", "block", "stream"])
def uniform_kernel(out, n, seed, block, stream, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Element i from word i % 4 of block i // 4; of 53 BITS from two words of block i // 2. Ten rounds."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at, s = block + i, stream + tl.zeros([BLOCK], tl.int64)
    low, high = at.to(tl.uint32), (at >> 32).to(tl.uint32)
    a, b, c, d = tl.philox(seed, low, high, s.to(tl.uint32), (s >> 32).to(tl.uint32))
    if BITS == 53:
        first = ((a.to(tl.uint64) << 32) | b.to(tl.uint64)) >> 11
        second = ((c.to(tl.uint64) << 32) | d.to(tl.uint64)) >> 11
        store(out, 2 * i, first.to(tl.float64) * (1.0 / (1 << 53)), 2 * i < n)
        store(out, 2 * i + 1, second.to(tl.float64) * (1.0 / (1 << 53)), 2 * i + 1 < n)
    else:
        store(out, 4 * i, (a >> (32 - BITS)).to(tl.float32) * (1.0 / (1 << BITS)), 4 * i < n)
        store(out, 4 * i + 1, (b >> (32 - BITS)).to(tl.float32) * (1.0 / (1 << BITS)), 4 * i + 1 < n)
        store(out, 4 * i + 2, (c >> (32 - BITS)).to(tl.float32) * (1.0 / (1 << BITS)), 4 * i + 2 < n)
        store(out, 4 * i + 3, (d >> (32 - BITS)).to(tl.float32) * (1.0 / (1 << BITS)), 4 * i + 3 < n)


def uniform(out, seed: int, block: int, stream: int, *, record: Record | None = None) -> None:
    """Numbers of [0, 1) into contiguous ``out``, with as many random bits as its type holds."""
    n, bits = out.numel(), BITS[out.dtype]
    if n == 0:
        return
    grid = blocks(n, BLOCK * (2 if bits == 53 else 4))
    meta = {"BITS": bits, "BLOCK": BLOCK}
    launch(uniform_kernel, grid, (out, n, seed, block, stream), meta, f"bits={bits}", out, record)
