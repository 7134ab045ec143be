"""Attention's forward pass: softmax(q k' ...) v with no matrix of all scores, by the rules of ``kernels/attention.h``.

A program has a tile of one head's queries and walks over the keys that these see (online softmax: Milakov and
Gimelshein, 2018; Dao, FlashAttention-2, 2023). Tiles that all of its queries see come without tests, the others with a
test of each element; there, what is hidden counts for nothing even if it is infinite or NaN.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from . import _math as m
from ._attention import (
    DROPOUT,
    INF,
    add_product,
    against,
    config,
    counter,
    features,
    head_terms,
    kept,
    key_tiles,
    matrix,
    operands,
    partial_tile,
    power,
    precision_of,
    query_terms,
    rules_of,
    scored,
    span,
    tile,
    wild,
)
from ._common import Record, blocks, device_of, index, launch, store


@triton.jit
def finite(top):
    """What to subtract from scores: nothing while no key was visible, as -inf - -inf is NaN."""
    return tl.where(top == -INF, 0.0, top)


@triton.jit
def rows_of(at, key, live, PAGE: tl.constexpr):
    """Where rows ``key`` begin; PAGE: they lie in pages of so many rows, which a table numbers."""
    if PAGE > 0:
        page = tl.load(at[3] + key // PAGE, mask=live, other=0).to(tl.int64)
        page = tl.minimum(tl.maximum(page, 0), at[5] - 1)  # the host has not seen these numbers
        return at[0] + (page * at[4] + (key % PAGE).to(tl.int64) * at[1])
    else:
        return at[0] + key * at[1]


@triton.jit
def step(
    acc, top, total, start, q, terms, head, law, dropout, at_k, at_v, keys, size, value_size, c,
    HAS: tl.constexpr, PARTIAL: tl.constexpr, LIKE: tl.constexpr, ONCE: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    PAGE: tl.constexpr = 0,
):  # fmt: skip
    """One tile of keys: sums, largest score and sum of powers after it."""
    key = index(start, BLOCK_N, WIDE)
    live = key < keys
    k_rows = rows_of(at_k, key, live, PAGE)
    k = tile(k_rows, live, tl.arange(0, BLOCK_D), at_k[2], size)
    s = against(q, (k, k_rows, live, at_k[2]), size, BLOCK_D, ONCE, PRECISION)
    s, _, visible = scored(s, terms, key, head, law, HAS, PARTIAL, True)
    new = tl.maximum(top, tl.max(s, axis=1))
    base = finite(new)
    FAST: tl.constexpr = LIKE.primitive_bitwidth == 16
    p = power(s - base[:, None], FAST)
    old = power(top - base, FAST)
    total = total * old + tl.sum(p, axis=1)
    if HAS & DROPOUT:
        p = tl.where(kept(terms[0], key, head, dropout, True), p, 0.0)
    v = tile(rows_of(at_v, key, live, PAGE), live, c, at_v[2], value_size)
    acc = add_product(acc * old[:, None], p, v, visible, LIKE, False, PRECISION)
    return acc, new, total


@triton.jit
def with_sink(acc, top, total, logit):
    """Sums, largest score and sum of powers where a sink takes part in the softmax."""
    new = tl.maximum(top, logit)
    base = finite(new)
    old = m.exp(top - base)
    return acc * old[:, None], new, total * old + m.exp(logit - base)


@triton.jit
def finished(acc, top, total, left_scale):
    """Results of the rows, and logs of their sums."""
    seen = total != 0.0
    r = m.divide(acc * tl.full((), left_scale, acc.dtype), tl.where(seen, total, 1.0)[:, None] + tl.zeros_like(acc))
    return tl.where(seen[:, None], r, 0.0), tl.where(seen, finite(top) + tl.log(total), -INF)


# Strides are specialised on 1 and on multiples of 16, as loads of more than one element need to know.
@triton.jit(do_not_specialize=["queries", "keys", "q_tiles", "heads", "group", "rules", "bound", "sizes"])
def attention_kernel(
    out, lse, query, key, value, mask, bias, slopes, sink, cu_q, cu_k, seed,
    scale: tl.float64, softcap: tl.float64, left_scale: tl.float64, rules, bound,
    queries, keys, size, value_size, q_tiles, heads, group, sizes, bo, bl, bq, bk, bv, bm, bb, bs,
    so, sl, sq, sk, sv, sm, sb, ss, sink_h,
    CHUNKED: tl.constexpr, HAS: tl.constexpr, WIDE: tl.constexpr, ONCE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_C columns of BLOCK_M rows of out, and their lse; the last queries first, which see most where causal."""
    pid = tl.program_id(0)
    INT: tl.constexpr = tl.int64 if WIDE else tl.int32
    start = (q_tiles - 1 - pid % q_tiles).to(INT) * BLOCK_M
    pid = pid // q_tiles
    columns = tl.maximum(tl.cdiv(value_size, BLOCK_C), 1)
    column = pid % columns
    head = pid // columns % heads
    batch = pid // columns // heads
    LIKE: tl.constexpr = out.dtype.element_ty
    T: tl.constexpr = tl.float64 if tl.float64 == LIKE else tl.float32
    first_q, n_q = span(INT, batch, cu_q, queries)
    first_k, n_k = span(INT, batch, cu_k, keys)
    i = start + tl.arange(0, BLOCK_M)
    live = i < n_q
    c = index(column, BLOCK_C, WIDE)
    terms = query_terms(i, n_q, n_k, rules, CHUNKED)
    of_head = head_terms(
        batch, head, mask, bias, slopes, first_q, first_k, queries, keys, heads, sizes, bm, bb, bs, sm, sb, ss,
        cu_q is not None,
    )  # fmt: skip
    law = (tl.full((), scale, T), tl.full((), softcap, T))
    dropout = counter(bound, seed)
    q_rows = matrix(query, batch, head, first_q, sizes, bq, sq) + i * sq[1]
    q = (tile(q_rows, live, tl.arange(0, BLOCK_D), sq[2], size), q_rows, live, sq[2])
    at_k = (matrix(key, batch, head // group, first_k, sizes, bk, sk), sk[1], sk[2])
    at_v = (matrix(value, batch, head // group, first_k, sizes, bv, sv), sv[1], sv[2])

    ALL: tl.constexpr = mask is not None or bias is not None
    first, last, full, full_last = key_tiles(start, n_q, n_k, rules, BLOCK_M, BLOCK_N, CHUNKED, ALL)
    acc = tl.zeros((BLOCK_M, BLOCK_C), T)
    top = tl.full((BLOCK_M,), -INF, T)
    total = tl.zeros((BLOCK_M,), T)
    for t in range((last - first) - (full_last - full)):
        acc, top, total = step(
            acc, top, total, partial_tile(t, first, full, full_last), q, terms, of_head, law, dropout, at_k, at_v, n_k,
            size, value_size, c, HAS, True, LIKE, ONCE, PRECISION, WIDE, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    if not ALL:
        for t in range(full_last - full):
            acc, top, total = step(
                acc, top, total, full + t, q, terms, of_head, law, dropout, at_k, at_v, n_k,
                size, value_size, c, HAS, False, LIKE, ONCE, PRECISION, WIDE, BLOCK_N, BLOCK_D,
            )  # fmt: skip
    if wild(acc):
        acc = tl.zeros((BLOCK_M, BLOCK_C), T)
        top = tl.full((BLOCK_M,), -INF, T)
        total = tl.zeros((BLOCK_M,), T)
        begin = first * BLOCK_N
        for t in range(tl.minimum(last * BLOCK_N, n_k) - begin):
            acc, top, total = step(
                acc, top, total, begin + t, q, terms, of_head, law, dropout, at_k, at_v, n_k,
                size, value_size, c, HAS, True, LIKE, False, PRECISION, WIDE, 1, 16,
            )  # fmt: skip

    if sink is not None:
        acc, top, total = with_sink(acc, top, total, tl.load(sink + head.to(tl.int64) * sink_h).to(T))
    r, log = finished(acc, top, total, left_scale)
    out_rows = matrix(out, batch, head, first_q, sizes, bo, so) + i * so[1]
    store(out_rows[:, None], (c * so[2])[None, :], r, live[:, None] & (c < value_size)[None, :])
    if lse is not None:  # noqa: SIM102 (decided when it is compiled)
        if column == 0:
            lse_rows = matrix(lse, batch, head, first_q, sizes, bl, sl) + i * sl[1]
            tl.store(lse_rows, log, mask=live)


def attention(
    out, lse, query, key, value, mask, bias, slopes, sink, cu_q, cu_k, seed, scale: float | None, softcap: float,
    dropout_p: float, rules, *, record: Record | None = None,
) -> None:  # fmt: skip
    """out = attention of the arguments, lse = log of the softmax's sum; lse None: it isn't wanted.

    query [batches..., heads, queries, size], key [..., kv_heads, keys, size], value [..., kv_heads, keys, value_size];
    mask (bool) and bias [..., heads, queries, keys], slopes [..., heads], sink [heads]: all broadcast already.
    cu_q, cu_k: sequences lie behind one another in the rows, without batches; rules: see ``rules_of``.
    """
    batch = out.shape[:-3]
    heads, queries, value_size = out.shape[-3:]
    keys, size = key.shape[-2:]
    packed = cu_q is not None
    device_of(out)  # refuses what Triton cannot run on
    if packed:  # rows of no sequence
        out.zero_()
        if lse is not None:
            lse.fill_(-math.inf)
    if heads * queries * math.prod(batch) == 0:
        return
    o = operands(batch, out, lse, query, key, value, mask, bias, slopes)
    r = rules_of(rules, scale, dropout_p, queries, keys, size)
    longest = r.longest_queries if packed else queries
    has = features(mask, bias, slopes, softcap, dropout_p)
    aligned = size % 16 == value_size % 16 == 0
    plan = config(query.dtype, precision_of(query), longest, max(size, value_size), False, has, aligned)
    tiles = blocks(longest, plan.block_m)
    grid = tiles * max(1, blocks(value_size, plan.block_c)) * heads
    grid *= cu_q.numel() - 1 if packed else math.prod(batch)
    if grid == 0:
        return
    launch(
        attention_kernel,
        grid,
        (
            out, lse, query, key, value, seen_as_bytes(mask), bias, slopes, sink, cu_q, cu_k,
            seed if dropout_p > 0 else None, r.scale, float(softcap), r.left_scale, r.visible, r.bound,
            queries, keys, size, value_size, tiles, heads, heads // key.shape[-3], o.sizes, *o.batches, *o.strides,
            0 if sink is None else sink.stride(0),
        ),
        {"CHUNKED": r.chunked, "HAS": has, "WIDE": o.wide, **plan.meta()},
        f"queries={queries} keys={keys} size={size} {plan}",
        out,
        record,
    )  # fmt: skip


def seen_as_bytes(mask):
    """Triton's one-bit loads are not those of a bool in memory."""
    import torch

    return None if mask is None else mask.view(torch.uint8)
