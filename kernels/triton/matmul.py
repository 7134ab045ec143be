"""Matrix product with fused epilogue, and the fused backward of activation and bias.

Arguments as in the ``_C`` functions of the same names: outputs first, allocated by the caller, any strides, any
number of batch dimensions, nothing copied. Tiles are taken in groups of rows, so that programs running together
share columns of b in L2; few output tiles with a long K are split along K and their partial sums added in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import triton
import triton.language as tl

from ._common import (
    INTERPRET,
    Device,
    Record,
    accumulator,
    blocks,
    collapse,
    columns,
    device_of,
    fold,
    index,
    launch,
    load,
    power_of_two,
    row_offset,
    store,
    times,
    widen,
)
from ._functions import ACTIVATIONS
from .activation import chain


@triton.jit
def _epilogue(
    acc, m, first, N, live_m, out, bias, residual, preact, alpha, beta, p0, p1,
    out_m, out_n, bias_n, residual_m, residual_n, preact_m, preact_n,
    F: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """v = alpha acc + bias, kept as preact if asked for; out = f(v) + beta residual; one rounding at the end.

    ``acc`` starts at column ``first``. Wider ones are halved down to COLUMNS columns and finished one after another,
    as the activation of a whole tile at once would need more registers than there are.
    """
    if acc.shape[1] > COLUMNS:
        HALF: tl.constexpr = acc.shape[1] // 2
        left, right = tl.split(tl.permute(tl.reshape(acc, (acc.shape[0], 2, HALF)), (0, 2, 1)))
        _epilogue(
            left, m, first, N, live_m, out, bias, residual, preact, alpha, beta, p0, p1,
            out_m, out_n, bias_n, residual_m, residual_n, preact_m, preact_n, F, WIDE, COLUMNS,
        )  # fmt: skip
        _epilogue(
            right, m, first + HALF, N, live_m, out, bias, residual, preact, alpha, beta, p0, p1,
            out_m, out_n, bias_n, residual_m, residual_n, preact_m, preact_n, F, WIDE, COLUMNS,
        )  # fmt: skip
    else:
        n = first + tl.arange(0, acc.shape[1])
        live = live_m & (n < N)[None, :]
        v = acc * tl.full((), alpha, acc.dtype)
        if bias is not None:
            v += load(bias, n * bias_n, n < N)[None, :]
        if preact is not None:
            store(preact, m * preact_m + n[None, :] * preact_n, v, live)
        y = F(v, tl.full((), p0, acc.dtype), tl.full((), p1, acc.dtype))
        if residual is not None:
            y += load(residual, m * residual_m + n[None, :] * residual_n, live) * tl.full((), beta, acc.dtype)
        store(out, m * out_m + n[None, :] * out_n, y, live)


# Strides are specialised on 1 and on multiples of 16, as loads of more than one element need to know.
@triton.jit(do_not_specialize=["sizes"])
def matmul_kernel(
    out, a, b, bias, residual, preact, partial, alpha: tl.float64, beta: tl.float64, p0: tl.float64, p1: tl.float64,
    M, N, K, sizes, ba, bb, bo, br, bp,
    a_m, a_k, b_k, b_n, out_m, out_n, bias_n, residual_m, residual_n, preact_m, preact_n,
    F: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, SPLIT: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = f(alpha a b + bias) + beta residual, a [M, K], b [K, N] in each batch.

    A program makes one BLOCK_M x BLOCK_N tile of out, over the whole of K, or over its share where SPLIT > 1; it
    then leaves its sum in partial [SPLIT, batch, M, N] and ``split_kernel`` does the rest.
    """
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    tiles = tiles_m * tiles_n
    pid = tl.program_id(0)
    tile = pid % tiles
    split = (pid // tiles) % SPLIT
    batch = pid // tiles // SPLIT
    # Grouped order: GROUP tiles down, then one to the right.
    per_group = GROUP * tiles_n
    first_m = (tile // per_group) * GROUP
    height = tl.minimum(tiles_m - first_m, GROUP)
    m = index(first_m + (tile % per_group) % height, BLOCK_M, WIDE)
    start_n = (tile % per_group) // height * BLOCK_N
    if WIDE:
        start_n = start_n.to(tl.int64)
    n = start_n + tl.arange(0, BLOCK_N)

    a += row_offset(batch, sizes, ba)
    b += row_offset(batch, sizes, bb)
    steps = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLIT)
    k = index(split * steps, BLOCK_K, WIDE)
    a_at = a + m[:, None] * a_m + k[None, :] * a_k
    b_at = b + k[:, None] * b_k + n[None, :] * b_n
    T: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_M, BLOCK_N), T)
    for _ in range(steps):
        x = tl.load(a_at, mask=(m < M)[:, None] & (k < K)[None, :], other=0.0)
        y = tl.load(b_at, mask=(k < K)[:, None] & (n < N)[None, :], other=0.0)
        # The interpreter cannot multiply bf16; its products are exact in f32.
        if INTERPRET:
            x = widen(x)
            y = widen(y)
        acc = tl.dot(x, y, acc, input_precision=PRECISION, out_dtype=T)
        k += BLOCK_K
        a_at += times(a_k, BLOCK_K, k.dtype)
        b_at += times(b_k, BLOCK_K, k.dtype)

    live = (m < M)[:, None] & (n < N)[None, :]
    if SPLIT > 1:
        batches = tl.num_programs(0) // tiles // SPLIT
        at = (split.to(tl.int64) * batches + batch) * M + m
        tl.store(partial + at[:, None] * N + n[None, :], acc, mask=live)
    else:
        out += row_offset(batch, sizes, bo)
        if residual is not None:
            residual += row_offset(batch, sizes, br)
        if preact is not None:
            preact += row_offset(batch, sizes, bp)
        _epilogue(
            acc, m[:, None], start_n, N, (m < M)[:, None], out, bias, residual, preact, alpha, beta, p0, p1,
            out_m, out_n, bias_n, residual_m, residual_n, preact_m, preact_n, F, WIDE, COLUMNS,
        )  # fmt: skip


@triton.jit(do_not_specialize=["batches", "M", "N", "sizes"])
def split_kernel(
    out, bias, residual, preact, partial, alpha: tl.float64, beta: tl.float64, p0: tl.float64, p1: tl.float64,
    batches, M, N, sizes, bo, br, bp, out_m, out_n, bias_n, residual_m, residual_n, preact_m, preact_n,
    F: tl.constexpr, SPLIT: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Adds the SPLIT partial sums of one row's BLOCK_N elements, first to last, and applies the epilogue."""
    groups = tl.cdiv(N, BLOCK_N)
    start = (tl.program_id(0) % groups).to(tl.int64) * BLOCK_N
    n = start + tl.arange(0, BLOCK_N)[None, :]
    row = tl.program_id(0) // groups
    batch = row // M
    at = partial + row.to(tl.int64) * N + n
    acc = tl.load(at, mask=n < N, other=0.0)
    for _ in range(1, SPLIT):
        at += batches.to(tl.int64) * M * N
        acc += tl.load(at, mask=n < N, other=0.0)
    out += row_offset(batch, sizes, bo)
    if residual is not None:
        residual += row_offset(batch, sizes, br)
    if preact is not None:
        preact += row_offset(batch, sizes, bp)
    _epilogue(
        acc, (row % M).to(tl.int64), start, N, n < N, out, bias, residual, preact, alpha, beta, p0, p1,
        out_m, out_n, bias_n, residual_m, residual_n, preact_m, preact_n, F, True, BLOCK_N,
    )  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A product as the plan sees it.

    Attributes:
        precision: of the multiplication, "ieee" or "tf32" (f32 only).
        aligned: rows or columns of a and b start at multiples of 16 elements, so that loads are vectors.
        plain: nothing is fused but a bias.
        whole: K is not split.
    """

    m: int
    n: int
    k: int
    batch: int = 1
    dtype: torch.dtype = torch.float32
    precision: str = "ieee"
    aligned: bool = True
    plain: bool = True
    whole: bool = False


@dataclass(frozen=True)
class Plan:
    block_m: int
    block_n: int
    block_k: int
    group: int
    split: int
    warps: int
    stages: int
    precision: str = "ieee"

    def __str__(self) -> str:
        return (
            f"tile={self.block_m}x{self.block_n}x{self.block_k} group={self.group} split={self.split} "
            f"warps={self.warps} stages={self.stages} {self.precision}"
        )

    def meta(self) -> dict:
        return {
            "BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k, "GROUP": self.group,
            "SPLIT": self.split, "PRECISION": self.precision, "num_warps": self.warps, "num_stages": self.stages,
            "COLUMNS": max(16, min(self.block_n, 512 * self.warps // self.block_m)),
        }  # fmt: skip


# (M, N, K, warps, stages, share of the peak that the tile's multiplications reach once its operands are there).
_TILES = {
    "half": (
        (128, 256, 64, 8, 3, 1.0),
        (128, 128, 64, 8, 4, 0.9),
        (128, 64, 64, 4, 4, 0.7),
        (64, 128, 64, 4, 4, 0.7),
        (64, 64, 64, 4, 4, 0.5),
        (64, 64, 32, 4, 4, 0.45),
        (16, 128, 64, 4, 5, 0.3),
        (16, 64, 128, 4, 4, 0.3),
        (16, 32, 128, 4, 5, 0.2),
        (16, 64, 32, 4, 4, 0.2),
    ),
    "tf32": (
        (128, 128, 32, 8, 4, 1.0),
        (128, 64, 32, 4, 4, 0.8),
        (64, 128, 32, 4, 4, 0.8),
        (64, 64, 32, 4, 4, 0.6),
        (16, 64, 64, 4, 4, 0.3),
        (16, 32, 64, 4, 5, 0.2),
    ),
    # Multiply-adds of the ordinary cores: the accumulators and both operands live in registers.
    "ieee": (
        (128, 64, 16, 8, 3, 1.0),
        (64, 64, 16, 4, 3, 0.9),
        (64, 32, 16, 4, 3, 0.7),
        (32, 32, 32, 4, 3, 0.5),
        (16, 64, 32, 4, 3, 0.4),
        (16, 32, 32, 4, 3, 0.3),
    ),
    "f64": (
        (64, 64, 16, 8, 3, 1.0),
        (32, 32, 32, 4, 3, 0.6),
        (16, 32, 32, 4, 3, 0.4),
    ),
}

# Multiplications that one multiprocessor does while it fetches one element from L2: peak over bandwidth.
_FETCH = {"half": 64, "tf32": 64, "ieee": 8, "f64": 8}


def kind_of(dtype: torch.dtype, precision: str) -> str:
    """Which list of tiles a product takes."""
    if dtype == torch.float64:
        return "f64"
    return precision if dtype == torch.float32 else "half"


def candidates(kind: str, device: Device, aligned: bool = True, plain: bool = True) -> tuple[Plan, ...]:
    """The unsplit plans of a kind, with as many stages as the shared memory holds.

    A fused activation needs registers beside the sums, and without vector loads every element of a step has its
    address in some: either bounds the tile, so that nothing spills.
    """
    size = {"half": 2, "tf32": 4, "ieee": 4, "f64": 8}[kind]
    largest = 128 * 256 if plain else 128 * 128
    loads = 48 if not aligned else 1000
    plans = []
    for m, n, k, warps, stages, _ in _TILES[kind]:
        fit = device.shared // ((m + n) * k * size)
        if fit >= 2 and m * n <= largest and (m + n) * k <= loads * 32 * warps:
            precision = "tf32" if kind == "tf32" else "ieee"
            plans.append(Plan(m, n, k, 8, 1, warps, min(stages, fit), precision))
    return tuple(plans)


def config(p: Problem, device: Device | None = None) -> Plan:
    """The plan of a product: tile and split with the least estimated time.

    Time is waves of tiles x steps along K x the longer of a step's multiplications and its loads, plus the traffic
    of the partial sums where K is split. Split only a K of at least four steps a share, into at most 32.
    """
    device = device or Device()
    kind = kind_of(p.dtype, p.precision)
    best, least = None, float("inf")
    shares = {t[:3]: t[5] for t in _TILES[kind]}
    fetch = _FETCH[kind]
    for plan in candidates(kind, device, p.aligned, p.plain):
        tiles = blocks(p.m, plan.block_m) * blocks(p.n, plan.block_n) * p.batch
        steps = blocks(p.k, plan.block_k)
        multiply = plan.block_m * plan.block_n / shares[plan.block_m, plan.block_n, plan.block_k]
        step = plan.block_k * max(multiply, fetch * (min(p.m, plan.block_m) + min(p.n, plan.block_n)))
        most = 1 if p.whole else min(32, steps // 4, device.multiprocessors // tiles)
        for split in {1, *(1 << i for i in range(1, 6) if 1 << i <= most)}:
            # Two steps to fill the pipeline; a partial sum is written and read once.
            waves = blocks(tiles * split, device.multiprocessors)
            time = waves * step * (blocks(steps, split) + 2)
            time += fetch * 2 * split * p.m * p.n * p.batch / device.multiprocessors if split > 1 else 0
            if time < least:
                group = 8 if blocks(p.m, plan.block_m) > 1 else 1
                best, least = Plan(
                    plan.block_m, plan.block_n, plan.block_k, group, split, plan.warps, plan.stages, plan.precision
                ), time  # fmt: skip
    assert best is not None
    return best


def _strides(t: torch.Tensor | None, dims: list[int]) -> list[int]:
    return [0] * len(dims) if t is None else [t.stride(d) for d in dims]


def _aligned(t: torch.Tensor, down: int, right: int, rows: int, cols: int) -> bool:
    """Whether a [rows, cols] operand can be read in vectors, along either side."""
    return t.data_ptr() % 16 == 0 and (
        (right == 1 and down % 16 == 0 and cols % 16 == 0) or (down == 1 and right % 16 == 0 and rows % 16 == 0)
    )


def matmul(
    out, a, b, bias, residual, preact, act: int, p0: float, p1: float, alpha: float, beta: float,
    *, tf32: bool | None = None, record: Record | None = None,
) -> None:  # fmt: skip
    """out = f(v) + beta residual, v = alpha a @ b + bias; v goes to ``preact`` if given.

    out, residual, preact [..., M, N], a [..., M, K], b [..., K, N], bias [N]; batch dimensions already broadcast.
    f32 multiplies in full precision, or in tf32 if asked to: by ``tf32``, or else by
    ``torch.backends.cuda.matmul.fp32_precision``, which each of torch's switches sets. beta 0 leaves the residual
    unread, as in torch.addmm.
    """
    if out.numel() == 0:
        return
    device = device_of(out)
    residual = None if beta == 0 else residual
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32" if tf32 is None else tf32
    N, K = out.shape[-1], a.shape[-1]
    lead = list(range(out.dim() - 2))
    # Batches that share b are rows of one product, where the strides of all else allow it.
    shared = [d for d in lead if out.shape[d] > 1 and b.stride(d) == 0]
    rows = [*shared, out.dim() - 2]
    joined = collapse([out.shape[d] for d in rows], *(_strides(t, rows) for t in (out, a, residual, preact)))
    M = joined.sizes[0] if joined.sizes else 1
    row = [s[0] if s else 0 for s in joined.strides]
    own = [d for d in lead if d not in shared]
    rest = collapse([out.shape[d] for d in own], *(_strides(t, own) for t in (out, a, residual, preact, b)))
    sizes = (*joined.sizes[1:], *rest.sizes)
    per_batch = [(*s[1:], *t) for s, t in zip(joined.strides, rest.strides[:4], strict=True)]
    per_batch_b = ((0,) * max(len(joined.sizes) - 1, 0)) + rest.strides[4]
    batch = out.numel() // (M * N)

    dtype_precision = "tf32" if tf32 and out.dtype == torch.float32 else "ieee"
    aligned = _aligned(a, row[1], a.stride(-1), M, K) and _aligned(b, b.stride(-2), b.stride(-1), K, N)
    plain = act == 0 and residual is None and preact is None
    plan = config(Problem(M, N, K, batch, out.dtype, dtype_precision, aligned, plain), device)
    column = [0 if t is None else t.stride(-1) for t in (out, residual, preact)]
    bias_n = 0 if bias is None else bias.stride(0)
    reach = max(
        (N - 1) * bias_n,
        (M - 1) * max(row) + (N - 1) * max(*column, b.stride(-1)),
        (M - 1) * row[1] + (K - 1) * a.stride(-1),
        (K - 1) * b.stride(-2) + (N - 1) * b.stride(-1),
    )
    edge = max(plan.block_m, plan.block_n, plan.block_k)
    wide = max(reach, M + edge, N + edge, K + edge * plan.split * 2) >= 2**31
    partial = None
    if plan.split > 1:
        partial = torch.empty((plan.split, batch, M, N), dtype=accumulator(out), device=out.device)
    name, f, _, _, _ = ACTIVATIONS[act]
    scalars = (float(alpha), float(beta), float(p0), float(p1))
    grid = blocks(M, plan.block_m) * blocks(N, plan.block_n) * plan.split * batch
    split = plan.split > 1
    launch(
        matmul_kernel,
        grid,
        (
            out, a, b, *((None,) * 3 if split else (bias, residual, preact)), partial, *scalars, M, N, K,
            sizes, per_batch[1], per_batch_b, per_batch[0], per_batch[2], per_batch[3],
            row[1], a.stride(-1), b.stride(-2), b.stride(-1), row[0], column[0], bias_n,
            row[2], column[1], row[3], column[2],
        ),
        # Split, the activation belongs to the second kernel: one compilation serves all.
        {**plan.meta(), "F": ACTIVATIONS[0][1] if split else f, "WIDE": wide},
        f"{name} M={M} N={N} K={K} batch={batch} {plan}",
        out,
        record,
    )  # fmt: skip
    if not split:
        return
    block = min(1024, max(32, power_of_two(N)))
    launch(
        split_kernel,
        batch * M * blocks(N, block),
        (
            out, bias, residual, preact, partial, *scalars, batch, M, N, sizes, per_batch[0], per_batch[2],
            per_batch[3], row[0], column[0], bias_n, row[2], column[1], row[3], column[2],
        ),
        {"F": f, "SPLIT": plan.split, "BLOCK_N": block, "num_warps": 4},
        f"{name} split={plan.split} block={block}",
        out,
        record,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows", "M"])
def activation_bias_backward_kernel(
    gz, partial, g, z, p0: tl.float64, p1: tl.float64, rows, M, N, gz_m, gz_n, g_m, g_n, z_m, z_n,
    D: tl.constexpr, SELECT: tl.constexpr, WIDE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """gz = g f'(z) and partial[chunk, n] = its sum over the chunk's ``rows`` rows, in one pass.

    Each lane adds up its column of tiles, lanes are added at the end: the order is fixed.
    """
    groups = tl.cdiv(N, BLOCK_C)
    chunk = tl.program_id(0) // groups
    column = index(tl.program_id(0) % groups, BLOCK_C, WIDE)
    n = column[None, :]
    T: tl.constexpr = tl.float64 if g.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_R, BLOCK_C), T)
    for step in range(tl.cdiv(rows, BLOCK_R)):
        m = index(chunk * tl.cdiv(rows, BLOCK_R) + step, BLOCK_R, WIDE)[:, None]
        live = (m < M) & (n < N)
        u = load(g, m * g_m + n * g_n, live)
        if z is not None:
            v = load(z, m * z_m + n * z_n, live)
            u = chain(u, D(v, tl.full((), p0, T), tl.full((), p1, T)), SELECT)
        if gz is not None:
            store(gz, m * gz_m + n * gz_n, u, live)
        acc += tl.where(live, u, 0.0)
    if partial is not None:
        tl.store(partial + chunk.to(tl.int64) * N + column, tl.sum(acc, axis=0), mask=column < N)


def activation_bias_backward(gz, gb, g, z, act: int, p0: float, p1: float, *, record: Record | None = None) -> None:
    """gz = g f'(z) and gb its column sums, of [M, N] tensors in one pass; either may be None, so may z (f' = 1)."""
    if g.numel() == 0 or (gz is None and gb is None):
        if gb is not None:
            gb.zero_()
        return
    device = device_of(g)
    M, N = g.shape
    name, _, d, _, select = ACTIVATIONS[act]
    plan = columns(M, N, g.stride(0) < g.stride(1), device)
    partial = None
    if gb is not None:
        partial = torch.empty((plan.chunks, N), dtype=accumulator(g), device=g.device)
    reach = max((M + 1024) * t.stride(0) + (N + 64) * t.stride(1) for t in (gz, g, z) if t is not None)
    wide = max(reach, M + 1024, N + 64) >= 2**31
    strides = [s for t in (gz, g, z) for s in ((0, 0) if t is None else t.stride())]
    launch(
        activation_bias_backward_kernel,
        plan.chunks * blocks(N, plan.block_c),
        (gz, partial, g, z, float(p0), float(p1), plan.rows, M, N, *strides),
        {**plan.meta(), "D": d, "SELECT": select, "WIDE": wide},
        f"{name} {plan}",
        g,
        record,
    )
    if partial is not None:
        fold(gb, partial, record)
