"""What the kernels share: loads and stores, offsets of strided tensors, launching, sums over chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

import triton
import triton.language as tl

Record = Callable[[str, str], None]

_interpret = bool(triton.knobs.runtime.interpret)


def constant(value):
    """A global that kernels may read. The compiler wants a ``tl.constexpr``, which the interpreter cannot index."""
    return value if _interpret else tl.constexpr(value)


# Fixed when the kernels are decorated, as Triton itself does.
INTERPRET = constant(_interpret)

# Vector width that the aligned form of the strided kernels promises to the compiler.
UNIT = 16


@dataclass(frozen=True)
class Device:
    """What a plan needs to know of a GPU: compute capability, multiprocessors, bytes of shared memory a block."""

    capability: int = 90
    multiprocessors: int = 132
    shared: int = 227 * 1024


@cache
def _cuda_device(index: int) -> Device:
    p = torch.cuda.get_device_properties(index)
    return Device(p.major * 10 + p.minor, p.multi_processor_count, p.shared_memory_per_block_optin)


def device_of(t: torch.Tensor) -> Device:
    """The device to plan for; for the interpreter, which pays by the program, a GPU of few multiprocessors."""
    if t.is_cuda:
        return _cuda_device(t.device.index)
    if not _interpret:
        raise RuntimeError(
            "neurokern.triton: a CPU tensor needs TRITON_INTERPRET=1 in the environment before the first import"
        )
    return Device(multiprocessors=8)


def launch(
    kernel, grid: int, args: Sequence, meta: dict, plan: object, tensor: torch.Tensor, record: Record | None
) -> None:
    """Run ``kernel`` on ``grid`` programs; ``record(kernel name, plan)`` is called first. Contraction of a * b + c
    stays off: where an fma is wanted the kernels write it, and the interpreter then does the same arithmetic."""
    if record is not None:
        record(kernel.fn.__name__, f"{plan} grid={grid}")
    with torch.cuda.device(tensor.device) if tensor.is_cuda else np.errstate(all="ignore"):
        kernel[(grid,)](*args, **meta, enable_fp_fusion=False)


@dataclass(frozen=True)
class Layout:
    """Dimensions joined over all operands, innermost first; ``strides[operand][dimension]``."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        n = 1
        for s in self.sizes:
            n *= s
        return n

    @property
    def reach(self) -> int:
        """Largest offset of any operand."""
        return max((sum((n - 1) * t for n, t in zip(self.sizes, s, strict=True)) for s in self.strides), default=0)


def collapse(shape: Sequence[int], *strides: Sequence[int]) -> Layout:
    """Drop dimensions of size 1, order the rest by the strides (first operand first), join what lies back to back
    in every operand. No operand is copied, whatever its strides."""
    dims = [(n, tuple(s[d] for s in strides)) for d, n in enumerate(shape) if n != 1]
    dims.sort(key=lambda d: d[1])
    joined: list[tuple[int, tuple[int, ...]]] = []
    for n, t in dims:
        if joined and all(a * joined[-1][0] == b for a, b in zip(joined[-1][1], t, strict=True)):
            joined[-1] = (joined[-1][0] * n, joined[-1][1])
        else:
            joined.append((n, t))
    return Layout(
        tuple(n for n, _ in joined),
        tuple(tuple(t[i] for _, t in joined) for i in range(len(strides))),
    )


def blocks(n: int, block: int) -> int:
    return -(-n // block)


def power_of_two(n: int) -> int:
    """The next power of two."""
    return 1 << max(n - 1, 0).bit_length()


@triton.jit
def widen(v):
    """To the type of the arithmetic: f64 stays, all else becomes f32."""
    if v.dtype == tl.float64:
        return v
    # The interpreter holds bf16 as integers and flushes its subnormals.
    elif INTERPRET and v.dtype == tl.bfloat16:
        return (v.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return v.to(tl.float32)


@triton.jit
def narrow(v, T: tl.constexpr):
    """Round to T, to nearest even."""
    # The interpreter would truncate to bf16.
    if INTERPRET and tl.bfloat16 == T:
        u = v.to(tl.uint32, bitcast=True)
        r = (u + 0x7FFF + ((u >> 16) & 1)) >> 16
        return tl.where(v == v, r, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return v.to(T)


@triton.jit
def load(p, offsets, mask):
    return widen(tl.load(p + offsets, mask=mask, other=0.0))


@triton.jit
def store(p, offsets, v, mask):
    tl.store(p + offsets, narrow(v, p.dtype.element_ty), mask=mask)


@triton.jit
def index(pid, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """The BLOCK consecutive indices of program ``pid``, in 64 bits where the tensor asks for it."""
    if WIDE:
        return pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    else:
        return pid * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def times(n, FACTOR: tl.constexpr, LIKE: tl.constexpr):
    """n * FACTOR in the type LIKE: an argument below 2^31 comes in 32 bits, which its multiples may leave."""
    return n * tl.full((), FACTOR, LIKE)


@triton.jit
def offset(i, sizes, strides, UNIT: tl.constexpr):
    """Offsets of the elements with linear index ``i`` over ``sizes`` (innermost first).

    UNIT 0: dense, or one repeated element where ``strides`` is None. UNIT 1: any strides. UNIT > 1: innermost
    stride 1 and everything else a multiple of UNIT, passed divided by it, so that the compiler sees the alignment
    and vectorises, without a recompilation for each shape.
    """
    if strides is None:
        return i - i
    elif UNIT == 0:
        return i
    else:
        r = i - i
        for d in tl.static_range(len(sizes)):
            if d == len(sizes) - 1:
                c = i
            elif d == 0:
                c = i % times(sizes[0], UNIT, i.dtype)
                i = i // times(sizes[0], UNIT, i.dtype)
            else:
                c = i % sizes[d]
                i = i // sizes[d]
            if d == 0 and UNIT > 1:
                r += c
            else:
                r += c * times(strides[d], UNIT, i.dtype)
        return r


@triton.jit
def row_offset(i, sizes, strides):
    """As ``offset``, of one scalar index, in 64 bits."""
    r = tl.full((), 0, tl.int64)
    i = i.to(tl.int64)
    for d in tl.static_range(len(sizes)):
        r += (i % sizes[d]) * strides[d]
        i = i // sizes[d]
    return r


@dataclass(frozen=True)
class Elementwise:
    """The plan of an elementwise kernel. ``unit``: see ``offset``; ``even``: what divides the count."""

    count: int
    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...] | None, ...]
    unit: int
    wide: bool
    block: int
    even: int
    warps: int = 4

    def __str__(self) -> str:
        form = {0: "dense", 1: "strided"}.get(self.unit, "aligned")
        bits = 64 if self.wide else 32
        return f"{form} rank={max(len(self.sizes), 1)} block={self.block} warps={self.warps} offsets={bits}"

    def meta(self) -> dict:
        return {
            "UNIT": self.unit,
            "EVEN": self.even,
            "WIDE": self.wide,
            "BLOCK": self.block,
            "num_warps": self.warps,
        }

    @property
    def grid(self) -> int:
        return blocks(self.count, self.block)


def elementwise(shape: Sequence[int], *strides: Sequence[int], interpret: bool = _interpret) -> Elementwise:
    """Plan an elementwise kernel over operands of one shape, the output first.

    1,024 elements for 128 threads are two 16-byte vectors a thread in f32, one in bf16. The interpreter pays by the
    program, so it gets longer blocks.
    """
    layout = collapse(shape, *strides)
    n = layout.count
    block = min(16384, max(1024, power_of_two(n))) if interpret else 1024
    wide = max(layout.reach, n + block) >= 2**31
    even = UNIT if n % UNIT == 0 else 1
    inner = [s[0] if s else 1 for s in layout.strides]
    if len(layout.sizes) <= 1 and all(t in (0, 1) for t in inner):
        return Elementwise(n, (), tuple(() if t == 1 else None for t in inner), 0, wide, block, even)
    sizes, moved = layout.sizes, layout.strides
    # A repeated operand needs no offsets at all.
    used: list[tuple[int, ...] | None] = [s if any(s) else None for s in moved]
    aligned = sizes[0] % UNIT == 0 and all(s is None or (s[0] == 1 and all(t % UNIT == 0 for t in s[1:])) for s in used)
    if not aligned:
        return Elementwise(n, sizes, tuple(used), 1, wide, block, even)
    scaled = tuple(None if s is None else (1, *(t // UNIT for t in s[1:])) for s in used)
    return Elementwise(n, (sizes[0] // UNIT, *sizes[1:]), scaled, UNIT, wide, block, even)


@dataclass(frozen=True)
class Columns:
    """The plan of a pass that also sums: every column over rows, in ``chunks`` of ``rows`` rows each."""

    block_r: int
    block_c: int
    rows: int
    chunks: int
    warps: int = 8

    def __str__(self) -> str:
        return f"tile={self.block_r}x{self.block_c} rows={self.rows} chunks={self.chunks} warps={self.warps}"

    def meta(self) -> dict:
        return {"BLOCK_R": self.block_r, "BLOCK_C": self.block_c, "num_warps": self.warps}


def columns(rows: int, cols: int, along_rows: bool, device: Device, tile: int = 1024) -> Columns:
    """Plan a column sum; ``along_rows``: neighbours in memory are rows, not columns; ``tile``: elements of a step.

    Chunks fill the device about four times; their number depends on the shape and the device alone, and they are
    added in order, so the result is bitwise repeatable.
    """
    if along_rows:
        block_c = 1 if cols == 1 else 2
        block_r = max(16, min(1024, power_of_two(rows)))
    else:
        block_c = max(1, min(64, power_of_two(cols)))
        block_r = max(1, min(tile // block_c, power_of_two(rows)))
    wanted = blocks(4 * device.multiprocessors, blocks(cols, block_c))
    steps = blocks(rows, block_r)
    per = blocks(steps, max(1, min(wanted, steps)))
    return Columns(block_r, block_c, per * block_r, blocks(steps, per))


@triton.jit(do_not_specialize=["chunks", "cols", "stride"])
def fold_kernel(out, partial, chunks, cols, stride, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """out[c] = sum over p of partial[p, c], p in order."""
    c = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    acc = tl.zeros((BLOCK_P, BLOCK_C), partial.dtype.element_ty)
    for start in range(0, chunks, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (p < chunks)[:, None] & (c < cols)[None, :]
        acc += tl.load(partial + p[:, None] * cols + c[None, :], mask=mask, other=0.0)
    store(out, c * stride, tl.sum(acc, axis=0), c < cols)


def fold(out: torch.Tensor, partial: torch.Tensor, record: Record | None) -> None:
    """Sum ``partial`` [chunks, columns] into the 1-D ``out`` in a fixed order."""
    chunks, cols = partial.shape
    block_c = max(1, min(32, power_of_two(cols)))
    block_p = max(1, min(1024 // block_c, power_of_two(chunks)))
    launch(
        fold_kernel,
        blocks(cols, block_c),
        (out, partial, chunks, cols, out.stride(0)),
        {"BLOCK_P": block_p, "BLOCK_C": block_c, "num_warps": 4},
        f"tile={block_p}x{block_c}",
        out,
        record,
    )


def accumulator(t: torch.Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32
