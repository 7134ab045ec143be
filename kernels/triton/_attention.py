"""What attention's forward and backward share (the rules of ``kernels/attention.h``): visible keys, tiles of scores,
products in which hidden keys count for nothing, dropout; and on the host the layout of the operands and the plan."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

import triton
import triton.language as tl

from . import _math as m
from ._common import INTERPRET, _interpret, collapse, constant, load, narrow, power_of_two, row_offset, widen

LOG2E = tl.constexpr(1.4426950408889634)
INF = tl.constexpr(float("inf"))
# What scores have besides a scale, as bits of one constant of the kernels.
MASK, BIAS, SLOPES, SOFTCAP, DROPOUT = (constant(1 << i) for i in range(5))


@triton.jit
def _first(place, chunk):
    """First key of the chunk that a place lies in; it may be negative."""
    return tl.where(place >= 0, place, place - chunk + 1) // chunk * chunk


@triton.jit
def visible_keys(query, queries, keys, rules, CHUNKED: tl.constexpr):
    """The place of a query, and the keys that it sees: begin .. end - 1."""
    left, right, chunk, bottom = rules
    place = query + bottom * (keys - queries)
    begin = place - left
    end = place + right + 1
    if CHUNKED:
        first = _first(place, chunk)
        begin = tl.maximum(begin, first)
        end = tl.minimum(end, first + chunk)
    return place, tl.maximum(begin, 0), tl.minimum(end, keys)


@triton.jit
def seeing_queries(key, queries, keys, rules, CHUNKED: tl.constexpr):
    """The queries that see a key: begin .. end - 1."""
    left, right, chunk, bottom = rules
    begin = key - right
    end = key + left + 1
    if CHUNKED:
        first = key // chunk * chunk
        begin = tl.maximum(begin, first)
        end = tl.minimum(end, first + chunk)
    shift = bottom * (keys - queries)
    return tl.maximum(begin - shift, 0), tl.minimum(end - shift, queries)


@triton.jit
def tiles_of(begin, end, full_begin, full_end, BLOCK: tl.constexpr, ALL_PARTIAL: tl.constexpr):
    """Tiles first .. last - 1 hold begin .. end - 1; of them full .. full_last - 1 need no test of each element."""
    first = begin // BLOCK
    last = tl.where(end > begin, tl.cdiv(end, BLOCK), first)
    if ALL_PARTIAL:
        return first, last, last, last
    else:
        full = tl.minimum(tl.cdiv(tl.maximum(full_begin, begin), BLOCK), last)
        full_last = tl.maximum(tl.minimum(full_end // BLOCK, last), full)
        return first, last, full, full_last


@triton.jit
def key_tiles(start, queries, keys, rules, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNKED: tl.constexpr,
              ALL_PARTIAL: tl.constexpr):  # fmt: skip
    """``tiles_of`` the keys that queries start .. start + BLOCK_M - 1 see."""
    final = tl.minimum(start + BLOCK_M, queries) - 1
    _, begin, full_end = visible_keys(start, queries, keys, rules, CHUNKED)
    _, full_begin, end = visible_keys(final, queries, keys, rules, CHUNKED)
    end = tl.where(final >= start, end, 0)
    return tiles_of(begin, end, full_begin, full_end, BLOCK_N, ALL_PARTIAL)


@triton.jit
def query_tiles(start, queries, keys, rules, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNKED: tl.constexpr,
                ALL_PARTIAL: tl.constexpr):  # fmt: skip
    """``tiles_of`` the queries that see keys start .. start + BLOCK_N - 1."""
    final = tl.minimum(start + BLOCK_N, keys) - 1
    begin, full_end = seeing_queries(start, queries, keys, rules, CHUNKED)
    full_begin, end = seeing_queries(final, queries, keys, rules, CHUNKED)
    end = tl.where(final >= start, end, 0)
    return tiles_of(begin, end, full_begin, full_end, BLOCK_M, ALL_PARTIAL)


@triton.jit
def partial_tile(i, first, full, full_last):
    """Number i of the tiles that are not full."""
    return tl.where(first + i < full, first + i, first + i + (full_last - full))


@triton.jit
def span(p, batch, cu, rows):
    """First row and number of rows of sequence ``batch``, within what there is; all rows without ``cu``."""
    if cu is not None:
        begin = tl.maximum(tl.minimum(tl.load(cu + batch).to(tl.int64), rows), 0)
        length = tl.minimum(tl.load(cu + batch + 1).to(tl.int64), rows) - begin
        return begin, tl.maximum(length, 0).to(p)
    else:
        return tl.full((), 0, tl.int64), tl.full((), 0, p) + rows


@triton.jit
def matrix(p, batch, head, row, sizes, batches, strides):
    """Where row ``row`` of a head's matrix begins."""
    return p + (row_offset(batch, sizes, batches) + head.to(tl.int64) * strides[0] + row * strides[1])


@triton.jit
def tile(rows, live, column, stride, size):
    """[rows, columns], 0 beyond ``live`` rows and ``size`` columns; ``rows``: pointers to their beginnings."""
    v = tl.load(
        rows[:, None] + (column.to(tl.int64) * stride)[None, :],
        mask=live[:, None] & (column < size)[None, :],
        other=0.0,
    )
    # The interpreter cannot multiply bf16; its products are exact in f32.
    if INTERPRET:
        v = widen(v)
    return v


@triton.jit
def against(a, b, size, BLOCK_D: tl.constexpr, ONCE: tl.constexpr, PRECISION: tl.constexpr):
    """Rows of a times rows of b (or a single one). An operand: (tile, rows, live, stride); ONCE: the tiles hold whole
    rows."""
    x, x_rows, x_live, x_stride = a
    y, y_rows, y_live, y_stride = b
    T: tl.constexpr = tl.float64 if x.dtype == tl.float64 else tl.float32
    if y_rows.shape[0] == 1:
        total = tl.zeros((x_rows.shape[0],), T)
        for start in range(0, size, BLOCK_D):
            d = (start + tl.arange(0, BLOCK_D)).to(tl.int64)
            left = widen(tile(x_rows, x_live, d, x_stride, size))
            total += tl.sum(left * widen(tile(y_rows, y_live, d, y_stride, size)), axis=1)
        return total[:, None]
    elif ONCE:
        return tl.dot(x, tl.trans(y), input_precision=PRECISION, out_dtype=T)
    else:
        acc = tl.zeros((x_rows.shape[0], y_rows.shape[0]), T)
        for start in range(0, size, BLOCK_D):
            d = (start + tl.arange(0, BLOCK_D)).to(tl.int64)
            left = tile(x_rows, x_live, d, x_stride, size)
            right = tile(y_rows, y_live, d, y_stride, size)
            acc = tl.dot(left, tl.trans(right), acc, input_precision=PRECISION, out_dtype=T)
        return acc


@triton.jit
def add_product(acc, a, b, visible, LIKE: tl.constexpr, FINE: tl.constexpr, PRECISION: tl.constexpr):
    """acc + a b by a product of matrices, a rounded to LIKE, or FINE to two numbers of LIKE whose sum it is: gradients
    are small differences. What is not visible is 0 in a, and 0 times an infinite or NaN b is NaN; with a single row b
    it counts for nothing."""
    if b.shape[0] == 1:
        return acc + tl.where(visible, a * widen(b), 0.0)
    else:
        high = narrow(a, LIKE)
        if FINE and LIKE.primitive_bitwidth == 16:
            low = narrow(a - widen(high), LIKE)
            if INTERPRET:
                low = widen(low)
            acc = tl.dot(low, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)
        if INTERPRET:
            high = widen(high)
        return tl.dot(high, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def row_terms(lse_rows, delta_rows, live):
    """lse, with 0 for a row that saw nothing, and delta."""
    log = tl.load(lse_rows, mask=live, other=0.0)
    return tl.where(log == -INF, 0.0, log), tl.load(delta_rows, mask=live, other=0.0)


@triton.jit
def wild(acc):
    """Whether a result has a NaN, and has to be made again with one row at a time (see ``add_product``)."""
    return tl.max((acc != acc).to(tl.int32)) != 0


@triton.jit
def power(x, FAST: tl.constexpr):
    """e^x; FAST: to a few units in the last place of f32, for results of 16 bits."""
    if FAST:
        return tl.exp2(x * LOG2E)
    else:
        return m.exp(x)


@triton.jit
def head_terms(
    batch, head, mask, bias, slopes, first_q, first_k, queries, keys, heads, sizes, bm, bb, bs, sm, sb, ss,
    PACKED: tl.constexpr,
):  # fmt: skip
    """What scores of a head take: number of its first probability, keys, rows and strides of mask and bias, slope;
    numbers stand in for what is absent, as a tuple of a kernel's has no None."""
    place = batch.to(tl.int64)
    if PACKED:
        place = place - place
    number = ((place * heads + head) * queries + first_q) * keys + first_k
    mask_at = number
    bias_at = number
    slope = number
    if mask is not None:
        mask_at = matrix(mask, batch, head, first_q, sizes, bm, sm) + first_k * sm[2]
    if bias is not None:
        bias_at = matrix(bias, batch, head, first_q, sizes, bb, sb) + first_k * sb[2]
    if slopes is not None:
        slope = tl.load(slopes + (row_offset(batch, sizes, bs) + head.to(tl.int64) * ss[0]))
    return number, keys, mask_at, sm[1], sm[2], bias_at, sb[1], sb[2], slope


@triton.jit
def query_terms(query, queries, keys, rules, CHUNKED: tl.constexpr):
    """Of a tile of queries: numbers, places, first keys that they see and ends of these; 0 beyond the last query."""
    place, begin, end = visible_keys(query, queries, keys, rules, CHUNKED)
    return query, place, begin, tl.where(query < queries, end, 0)


@triton.jit
def across(x, DOWN: tl.constexpr):
    """A vector as a column or as a row."""
    if DOWN:
        return x[:, None]
    else:
        return x[None, :]


@triton.jit
def scored(s, terms, key, head, law, HAS: tl.constexpr, PARTIAL: tl.constexpr, DOWN: tl.constexpr):
    """(scores, -inf where not visible; 1 - tanh^2 of softcap; visible) of a tile of products, queries DOWN or right."""
    query, place, begin, end = terms
    _, _, mask_at, mask_row, mask_column, bias_at, bias_row, bias_column, slope = head
    scale, softcap = law
    i = across(query, DOWN)
    j = across(key, not DOWN)
    s = s * scale
    bend = s
    if HAS & SOFTCAP:
        t = m.tanh(m.divide(s, softcap + tl.zeros_like(s)))
        s = t * softcap
        bend = 1.0 - t * t
    if HAS & SLOPES:
        s = s - slope * tl.abs(across(place, DOWN) - j).to(s.dtype)
    visible = (j >= across(begin, DOWN)) & (j < across(end, DOWN))
    if HAS & MASK:
        visible = visible & (tl.load(mask_at + i * mask_row + j * mask_column, mask=visible, other=0) != 0)
    if HAS & BIAS:
        s = s + load(bias_at, i * bias_row + j * bias_column, visible).to(s.dtype)
    if PARTIAL:
        visible = visible & (s != -INF)
        s = tl.where(visible, s, -INF)
    return s, bend, visible


@triton.jit
def counter(bound, seed):
    """What dropout takes: a bound for random numbers of 24 bits, and the seed and offset that lie in memory."""
    if seed is not None:
        return bound, tl.load(seed), tl.load(seed + 1)
    else:
        return bound, bound, bound


@triton.jit
def kept(query, key, head, dropout, DOWN: tl.constexpr):
    """Which probabilities dropout leaves: each has a word of the counter's blocks, and stays from a bound on."""
    bound, seed, offset = dropout
    i = head[0] + across(query, DOWN) * tl.full((), head[1], tl.int64) + across(key, not DOWN)
    block = (i >> 2) + offset
    low, high = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    zero = low - low
    a, b, c, d = tl.philox(seed, low, high, zero, zero)
    word = i & 3
    w = tl.where(word < 2, tl.where(word == 0, a, b), tl.where(word == 2, c, d))
    return (w >> 8).to(tl.int32) >= bound


@dataclass(frozen=True)
class Plan:
    """Tiles of block_m queries by block_n keys; block_d: columns of a step of a product along the head's size;
    block_c: columns of a result that a program makes; once: rows fit one step, and their tiles are kept."""

    block_m: int
    block_n: int
    block_d: int
    block_c: int
    once: bool
    warps: int
    stages: int
    precision: str

    def __str__(self) -> str:
        return (
            f"tile={self.block_m}x{self.block_n}x{self.block_d} columns={self.block_c} warps={self.warps} "
            f"stages={self.stages} {self.precision}"
        )

    def meta(self) -> dict:
        return {
            "BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_D": self.block_d, "BLOCK_C": self.block_c,
            "ONCE": self.once, "PRECISION": self.precision, "num_warps": self.warps, "num_stages": self.stages,
            # without a limit ptxas spills where that lets one more block run at a time
            "maxnreg": min(255, 65536 // (32 * self.warps)),
        }  # fmt: skip


# Largest columns of a tile: (queries, keys, warps, stages) of the forward pass, of the gradients.
_TILES = {
    "half": {
        64: ((128, 64, 8, 3), (64, 32, 4, 2)),
        128: ((128, 64, 8, 3), (32, 32, 4, 2)),
        256: ((64, 32, 8, 2), (16, 32, 8, 2)),
    },
    "tf32": {64: ((64, 32, 4, 2), (32, 32, 8, 1))},
    # Multiplies by the ordinary cores, whose operands lie in registers: in steps of 16 columns.
    "ieee": {64: ((32, 32, 4, 2), (32, 32, 4, 1))},
    "f64": {64: ((32, 32, 4, 1), (32, 16, 8, 1))},
}


def config(
    dtype: torch.dtype,
    precision: str,
    queries: int,
    largest: int,
    backward: bool,
    has: int,
    aligned: bool,
    interpret: bool = _interpret,
) -> Plan:
    """The plan for heads of ``largest`` columns; few queries (a step of decoding) take a tile of 16.

    A softcap or dropout needs registers for each score beside the sums, and rows that are not read in vectors need them
    for addresses: smaller tiles, so that nothing spills.
    """
    columns = max(16, power_of_two(largest))
    if interpret:  # which pays by the operation
        return Plan(64, 64, min(columns, 256), min(columns, 256), columns <= 256, 4, 1, precision)
    kind = "f64" if dtype == torch.float64 else precision if dtype == torch.float32 else "half"
    few = queries <= 16
    tiles = _TILES[kind]
    most = min((c for c in tiles if c >= columns), default=max(tiles))
    rows, keys, warps, stages = tiles[most][backward]
    if has >> 3 or not aligned:
        if backward or keys <= 32 or not aligned:
            rows = min(rows, max(32, rows // 2))
        if backward and has >> 3:
            rows, stages = rows if kind in ("half", "f64") else min(rows, 16), 1
        keys = min(keys, 32 if aligned else 16)
    block = min(columns, most)
    once = kind != "ieee" and largest <= block
    step = 16 if kind == "ieee" else block
    return Plan(16 if few else rows, keys, step, block, once, 4 if few and not backward else warps, stages, precision)


@dataclass(frozen=True)
class Operands:
    """Sizes and strides of tensors [batches..., heads, rows, columns]: those of the batches, and the other three.

    Batches keep their order, as dropout counts them.
    """

    sizes: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    wide: bool


def operands(shape: torch.Size, *tensors: torch.Tensor | None) -> Operands:
    """``shape``: of the batches; a tensor without rows or columns has their strides 0, None all."""
    lead = len(shape)
    absent = (0,) * (lead + 3)
    strides = [absent if t is None else (*t.stride(), *absent)[: lead + 3] for t in tensors]
    order = [math.prod(shape[i + 1 :]) for i in range(lead)]
    joined = collapse(shape, order, *(s[:lead] for s in strides))
    sizes = joined.sizes or (1,)
    batches = joined.strides[1:] if joined.sizes else ((0,),) * len(tensors)
    reach = 0
    for t, s in zip(tensors, strides, strict=True):
        if t is not None:
            # a tile's end lies beyond the last row
            reach = max(reach, sum((n + 256) * abs(s[lead + 1 + d]) for d, n in enumerate(t.shape[lead + 1 :])))
            reach = max(reach, 2 * sum(t.shape[lead + 1 :]) + 1024)  # a place and its window
    return Operands(sizes, batches, tuple(s[lead:] for s in strides), reach >= 2**31)


def features(mask, bias, slopes, softcap: float, dropout_p: float) -> int:
    """HAS: the bits above."""
    given = (mask is not None, bias is not None, slopes is not None, softcap != 0, dropout_p > 0)
    return sum(1 << i for i, g in enumerate(given) if g)


def precision_of(t: torch.Tensor) -> str:
    """As the products' (``matmul``): f32 in full precision, or in tf32 if torch is asked for it."""
    return "tf32" if t.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest" else "ieee"


@dataclass(frozen=True)
class Rules:
    """The op's numbers as the kernels take them."""

    visible: tuple[int, int, int, int]  # left, right, chunk, bottom_right
    chunked: bool
    bound: int  # of random numbers of 24 bits, from which on a probability stays
    left_scale: float  # of those that stay
    scale: float
    longest_queries: int
    longest_keys: int


def rules_of(rules, scale: float | None, dropout_p: float, queries: int, keys: int, size: int) -> Rules:
    """``rules``: left, right (-1: no limit), chunk, bottom_right, (groups), and the longest sequence's queries and keys
    (0: unknown)."""
    far = queries + keys
    left, right = (far if n < 0 else min(n, far) for n in rules[:2])
    chunk = rules[2]
    if scale is None:
        scale = 1 / math.sqrt(size) if size else math.inf
    return Rules(
        (left, right, max(1, min(chunk, far)), int(rules[3])),
        chunk > 0,
        math.ceil(torch.tensor(dropout_p, dtype=torch.float32).item() * 2**24),
        1 / (1 - dropout_p) if dropout_p < 1 else 0.0,
        float(scale),
        *(min(n, most) if n > 0 else most for n, most in zip(rules[5:7], (queries, keys), strict=True)),
    )
