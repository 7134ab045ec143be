"""Attention to a cache of keys and values, whole or in pages, and writing to it.

A program has a tile of rows, the tokens of all heads of queries that share a head of keys, and a part of the keys; the
parts are put together by ``join_kernel`` (Dao et al., Flash-Decoding, 2023). Shapes alone decide how many there are:
lengths are numbers on the device.
"""

from __future__ import annotations

from dataclasses import replace

import torch

import triton
import triton.language as tl

from . import _math as m
from ._attention import INF, config, features, precision_of, rules_of, tile, tiles_of, visible_keys, wild
from ._common import Record, accumulator, blocks, device_of, index, launch, power_of_two, store
from .attention import finished, finite, step, with_sink

PART = 256  # least keys of a part, where the plan chooses


@triton.jit(do_not_specialize=["heads", "rows", "steps", "capacity", "pages"])
def append_kernel(
    cache, new, lengths, table, heads, rows, size, steps, capacity, pages, table_row, sc, sn,
    PAGE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_R rows of ``new`` to their places behind the rows of a sequence; PAGE: rows of a page, 0: no pages."""
    pid = tl.program_id(0)
    r = pid % steps * BLOCK_R + tl.arange(0, BLOCK_R)
    head = pid // steps % heads
    batch = (pid // steps // heads).to(tl.int64)
    place = tl.load(lengths + batch).to(tl.int64) + r
    live = (r < rows) & (place >= 0) & (place < capacity)  # the host has not seen these numbers
    if table is not None:
        page = tl.load(table + batch * table_row + place // PAGE, mask=live, other=0).to(tl.int64)
        live = live & (page >= 0) & (page < pages)
        to = page * sc[0] + place % PAGE * sc[2]
    else:
        to = batch * sc[0] + place * sc[2]
    to = cache + (to + head.to(tl.int64) * sc[1])
    source = new + (batch * sn[0] + head.to(tl.int64) * sn[1] + r.to(tl.int64) * sn[2])
    for start in range(0, size, BLOCK_C):
        c = (start + tl.arange(0, BLOCK_C)).to(tl.int64)
        mask = live[:, None] & (c < size)[None, :]
        v = tl.load(source[:, None] + (c * sn[3])[None, :], mask=mask)
        tl.store(to[:, None] + (c * sc[3])[None, :], v, mask=mask)


@triton.jit
def head_of(cache, batch, head, table, pages, strides, PAGED: tl.constexpr):
    """Where a head's rows are, as a step takes it; of pages also the stride from one to the next, and their number."""
    at = cache + head.to(tl.int64) * strides[1]
    if PAGED:
        return at, strides[2], strides[3], table, strides[0], pages
    else:
        return at + batch.to(tl.int64) * strides[0], strides[2], strides[3]


# numbers that change from call to call
_PLAIN = ["appended", "capacity", "pages", "heads", "group", "tokens", "tiles", "parts", "visible", "sink_h"]


@triton.jit(do_not_specialize=_PLAIN)
def attention_of_cache_kernel(
    out, lse, partial, sums, query, key, value, lengths, table, slopes, sink, scale: tl.float64, softcap: tl.float64,
    visible, appended, capacity, pages, heads, group, tokens, size, value_size, tiles, parts, table_row,
    so, sl, sq, sk, sv, ss, sink_h,
    HAS: tl.constexpr, WIDE: tl.constexpr, ONCE: tl.constexpr, PRECISION: tl.constexpr, PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_C columns of BLOCK_M rows; with parts, what one of them makes goes to ``partial`` and ``sums``."""
    pid = tl.program_id(0)
    part = pid % parts
    pid = pid // parts
    start = pid % tiles * BLOCK_M
    pid = pid // tiles
    columns = tl.maximum(tl.cdiv(value_size, BLOCK_C), 1)
    column = pid % columns
    kv_heads = heads // group
    kv_head = pid // columns % kv_heads
    batch = (pid // columns // kv_heads).to(tl.int64)
    LIKE: tl.constexpr = out.dtype.element_ty
    T: tl.constexpr = tl.float64 if tl.float64 == LIKE else tl.float32
    keys = tl.minimum(tl.maximum(tl.load(lengths + batch).to(tl.int64), 0) + appended, capacity).to(tl.int32)
    r = start + tl.arange(0, BLOCK_M)
    live = r < tokens * group
    token = r // group
    head = kv_head * group + r % group
    c = index(column, BLOCK_C, False)
    place, begin, end = visible_keys(token, tokens, keys, visible, False)
    terms = (token, place, begin, tl.where(live, end, 0))
    slope = tl.zeros((BLOCK_M, 1), T)
    if slopes is not None:
        slope = tl.load(slopes + (batch * ss[0] + head.to(tl.int64) * ss[1]), mask=live, other=0.0)[:, None]
    of_head = (batch, keys, batch, batch, batch, batch, batch, batch, slope)
    law = (tl.full((), scale, T), tl.full((), softcap, T))
    q_rows = query + (batch * sq[0] + head.to(tl.int64) * sq[1] + token.to(tl.int64) * sq[2])
    q = (tile(q_rows, live, tl.arange(0, BLOCK_D), sq[3], size), q_rows, live, sq[3])
    if table is not None:
        table += batch * table_row
    at_k = head_of(key, batch, kv_head, table, pages, sk, PAGE > 0)
    at_v = head_of(value, batch, kv_head, table, pages, sv, PAGE > 0)

    _, first_key, full_end = visible_keys(start // group, tokens, keys, visible, False)
    final = tl.minimum((start + BLOCK_M - 1) // group, tokens - 1)
    _, full_begin, last_key = visible_keys(final, tokens, keys, visible, False)
    first, last, full, full_last = tiles_of(first_key, last_key, full_begin, full_end, BLOCK_N, False)
    count = last - first
    last = first + count * (part + 1) // parts
    first = first + count * part // parts
    full = tl.minimum(tl.maximum(full, first), last)
    full_last = tl.minimum(tl.maximum(full_last, full), last)
    acc = tl.zeros((BLOCK_M, BLOCK_C), T)
    top = tl.full((BLOCK_M,), -INF, T)
    total = tl.zeros((BLOCK_M,), T)
    dropout = (batch, batch, batch)
    for t in range((last - first) - (full_last - full)):
        at = tl.where(first + t < full, first + t, first + t + (full_last - full))
        acc, top, total = step(
            acc, top, total, at, q, terms, of_head, law, dropout, at_k, at_v, keys, size, value_size, c, HAS, True,
            LIKE, ONCE, PRECISION, WIDE, BLOCK_N, BLOCK_D, PAGE,
        )  # fmt: skip
    for t in range(full_last - full):
        acc, top, total = step(
            acc, top, total, full + t, q, terms, of_head, law, dropout, at_k, at_v, keys, size, value_size, c, HAS,
            False, LIKE, ONCE, PRECISION, WIDE, BLOCK_N, BLOCK_D, PAGE,
        )  # fmt: skip
    if wild(acc):
        acc = tl.zeros((BLOCK_M, BLOCK_C), T)
        top = tl.full((BLOCK_M,), -INF, T)
        total = tl.zeros((BLOCK_M,), T)
        for t in range(tl.minimum(last * BLOCK_N, keys) - first * BLOCK_N):
            acc, top, total = step(
                acc, top, total, first * BLOCK_N + t, q, terms, of_head, law, dropout, at_k, at_v, keys, size,
                value_size, c, HAS, True, LIKE, False, PRECISION, WIDE, 1, 16, PAGE,
            )  # fmt: skip

    if partial is not None:
        row = ((batch * heads + head) * tokens + token) * parts + part
        tl.store(
            partial + (row[:, None] * value_size + c[None, :]), acc, mask=live[:, None] & (c < value_size)[None, :]
        )
        if column == 0:
            tl.store(sums + row * 2, top, mask=live)
            tl.store(sums + row * 2 + 1, total, mask=live)
    else:
        if sink is not None:
            logit = tl.load(sink + head.to(tl.int64) * sink_h, mask=live, other=0.0).to(T)
            acc, top, total = with_sink(acc, top, total, logit)
        result, log = finished(acc, top, total, 1.0)
        to = out + (batch * so[0] + head.to(tl.int64) * so[1] + token.to(tl.int64) * so[2])
        store(to[:, None], (c.to(tl.int64) * so[3])[None, :], result, live[:, None] & (c < value_size)[None, :])
        if column == 0:
            tl.store(lse + (batch * sl[0] + head.to(tl.int64) * sl[1] + token.to(tl.int64) * sl[2]), log, mask=live)


@triton.jit(do_not_specialize=["heads", "tokens", "parts", "sink_h"])
def join_kernel(
    out, lse, partial, sums, sink, heads, tokens, value_size, parts, so, sl, sink_h,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A row of out from its parts, in order."""
    pid = tl.program_id(0).to(tl.int64)
    token = pid % tokens
    head = pid // tokens % heads
    batch = pid // tokens // heads
    T: tl.constexpr = partial.dtype.element_ty
    p = tl.arange(0, BLOCK_P)
    there = p < parts
    at = pid * parts + p
    tops = tl.load(sums + at * 2, mask=there, other=-INF)
    totals = tl.load(sums + at * 2 + 1, mask=there, other=0.0)
    top = tl.max(tops, axis=0)
    factors = m.exp(tops - finite(top))
    total = tl.sum(totals * factors, axis=0)
    # as tiles of one row, which is what the rest takes
    top = tl.zeros((1,), T) + top
    total = tl.zeros((1,), T) + total
    start = 0
    while start < tl.maximum(value_size, 1):
        c = start + tl.arange(0, BLOCK_C)
        mask = there[:, None] & (c < value_size)[None, :]
        x = tl.load(partial + (at[:, None] * value_size + c[None, :]), mask=mask, other=0.0)
        # a part that saw nothing is 0, whatever its factor
        acc = tl.sum(tl.where((totals != 0.0)[:, None], x * factors[:, None], 0.0), axis=0)[None, :]
        new_top, new_total = top, total
        if sink is not None:
            logit = tl.zeros((1,), T) + tl.load(sink + head * sink_h).to(T)
            acc, new_top, new_total = with_sink(acc, top, total, logit)
        result, log = finished(acc, new_top, new_total, 1.0)
        to = out + (batch * so[0] + head * so[1] + token * so[2])
        store(to, (c.to(tl.int64) * so[3])[None, :], result, (c < value_size)[None, :])
        if start == 0:
            row = tl.zeros((1,), tl.int64) + (batch * sl[0] + head * sl[1] + token * sl[2])
            tl.store(lse + row, log)
        start += BLOCK_C


def append_to_cache(cache, new, lengths, table, *, record: Record | None = None) -> None:
    """new [batch, heads, rows, size] to its places in cache [batch, heads, capacity, size], or in pages of it."""
    batch, heads, rows, size = new.shape
    device_of(cache)  # refuses what Triton cannot run on
    if new.numel() == 0:
        return
    block_c = min(128, power_of_two(size))
    block_r = max(1, min(1024 // block_c, power_of_two(rows)))
    steps = blocks(rows, block_r)
    launch(
        append_kernel,
        batch * heads * steps,
        (
            cache, new, lengths, table, heads, rows, size, steps,
            cache.shape[2] * (1 if table is None else table.shape[1]), cache.shape[0],
            0 if table is None else table.stride(0), cache.stride(), new.stride(),
        ),
        {"PAGE": 0 if table is None else cache.shape[2], "BLOCK_R": block_r, "BLOCK_C": block_c, "num_warps": 4},
        f"rows={rows} tile={block_r}x{block_c}",
        new,
        record,
    )  # fmt: skip


def parts_of(programs: int, keys: int, wanted: int, multiprocessors: int) -> int:
    """Parts of the keys: as many as asked for, or until each multiprocessor has two programs."""
    if wanted > 0:
        return max(1, min(wanted, keys))
    return max(1, min(blocks(2 * multiprocessors, max(programs, 1)), keys // PART))


def attention_of_cache(
    out, lse, query, k_cache, v_cache, lengths, table, slopes, sink, scale: float | None, softcap: float, rules,
    *, record: Record | None = None,
) -> None:  # fmt: skip
    """out [batch, heads, tokens, value_size] and lse, of query and the rows that are in a cache.

    Caches are [batch, kv_heads, capacity, size], or pages [.., kv_heads, rows, size] with table [batch, pages];
    slopes [batch, heads]; rules: left, right (-1: no limit), 0 or 1, appended, parts (0: the plan chooses).
    """
    batch, heads, tokens, value_size = out.shape
    kv_heads, capacity, size = k_cache.shape[1:]
    device = device_of(out)
    if out.numel() == 0 and lse.numel() == 0:
        return
    page = 0 if table is None else capacity
    if table is not None:
        capacity *= table.shape[1]
    left, right, _, appended, wanted = rules
    group = heads // max(kv_heads, 1)
    r = rules_of((left, right, 0, 1, 0, 0, 0), scale, 0.0, tokens, capacity, size)
    has = features(None, None, slopes, softcap, 0.0)
    # a tile's end lies beyond the last row
    wide = (capacity + 256) * max(abs(t.stride(2)) for t in (k_cache, v_cache)) >= 2**31
    aligned = size % 16 == value_size % 16 == 0
    largest = max(size, value_size)
    plan = config(query.dtype, precision_of(query), tokens * group, largest, False, has, aligned)
    if page or has:  # addresses of keys take registers, and so does a slope for each row
        plan = replace(plan, block_m=max(16, plan.block_m // 2))
    tiles = blocks(tokens * group, plan.block_m)
    programs = batch * kv_heads * tiles * max(1, blocks(value_size, plan.block_c))
    parts = parts_of(programs, capacity, int(wanted), device.multiprocessors)
    partial = sums = None
    if parts > 1:
        partial = torch.empty((batch * heads * tokens, parts, value_size), dtype=accumulator(out), device=out.device)
        sums = torch.empty((batch * heads * tokens, parts, 2), dtype=accumulator(out), device=out.device)
    sink_h = 0 if sink is None else sink.stride(0)
    launch(
        attention_of_cache_kernel,
        programs * parts,
        (
            out, lse, partial, sums, query, k_cache, v_cache, lengths, table, slopes, sink, r.scale, float(softcap),
            r.visible, int(appended), capacity, k_cache.shape[0], heads, group, tokens, size, value_size, tiles, parts,
            0 if table is None else table.stride(0), out.stride(), lse.stride(), query.stride(), k_cache.stride(),
            v_cache.stride(), (0, 0) if slopes is None else slopes.stride(), sink_h,
        ),
        {"HAS": has, "WIDE": wide, "PAGE": page, **plan.meta()},
        f"tokens={tokens} capacity={capacity} page={page} size={size} parts={parts} {plan}",
        out,
        record,
    )  # fmt: skip
    if partial is None:
        return
    block_p = power_of_two(parts)
    block_c = max(16, min(power_of_two(value_size), 4096 // block_p))
    launch(
        join_kernel,
        batch * heads * tokens,
        (out, lse, partial, sums, sink, heads, tokens, value_size, parts, out.stride(), lse.stride(), sink_h),
        {"BLOCK_P": block_p, "BLOCK_C": block_c, "num_warps": 4},
        f"parts={parts} columns={block_c}",
        out,
        record,
    )
