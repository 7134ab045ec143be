"""Attention's gradients, from the log of the softmax's sum, with the scores made again.

Three kernels, none with atomics, so that results are the same bit for bit: the queries' gradient by tiles of queries,
those of keys and values by tiles of keys (over the queries' heads that share them, in order), and a bias' by its own
tiles, over all that it is repeated for. The first also leaves delta = rowsum(p * dp) - g_lse for the others, and the
sink's gradient. (rowsum(g * out) is the same, but for the rounding of out, which 16 bits feel.)
"""

from __future__ import annotations

import math

import torch

import triton
import triton.language as tl

from . import _math as m
from ._attention import (
    DROPOUT,
    INF,
    SOFTCAP,
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
    query_tiles,
    row_terms,
    rules_of,
    scored,
    span,
    tile,
    wild,
)
from ._common import Record, accumulator, blocks, device_of, fold, index, launch, row_offset, store
from .attention import seen_as_bytes


@triton.jit
def _gradients(
    q, k, g, v, log, delta, terms, key, head, law, dropout, size, value_size,
    HAS: tl.constexpr, PARTIAL: tl.constexpr, DOWN: tl.constexpr, LIKE: tl.constexpr, ONCE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(probabilities after dropout, gradients of biased scores and of products, visible) of a tile, queries DOWN or
    right. q, k, g, v: operands of ``against``."""
    scale, softcap, left_scale = law
    if DOWN:
        s = against(q, k, size, BLOCK_D, ONCE, PRECISION)
        dp = against(g, v, value_size, BLOCK_D, ONCE, PRECISION)
        log = log[:, None]
        delta = delta[:, None]
    else:
        s = against(k, q, size, BLOCK_D, ONCE, PRECISION)
        dp = against(v, g, value_size, BLOCK_D, ONCE, PRECISION)
        log = log[None, :]
        delta = delta[None, :]
    s, bend, visible = scored(s, terms, key, head, (scale, softcap), HAS, PARTIAL, DOWN)
    p = power(s - log, LIKE.primitive_bitwidth == 16)
    dropped = p
    if HAS & DROPOUT:
        stays = kept(terms[0], key, head, dropout, DOWN)
        dropped = tl.where(stays, p * left_scale, 0.0)
        dp = tl.where(stays, dp * left_scale, 0.0)
    biased = p * (dp - delta)
    if PARTIAL:  # lse and delta of a query that sees a NaN are NaN, which is no business of the keys it doesn't see
        dropped = tl.where(visible, dropped, 0.0)
        biased = tl.where(visible, biased, 0.0)
    inner = biased
    if HAS & SOFTCAP:
        inner = biased * bend
        if PARTIAL:
            inner = tl.where(visible, inner, 0.0)
    return dropped, biased, inner, visible


@triton.jit
def _delta_step(
    start, q, g, log, terms, head, law, dropout, at_k, at_v, keys, size, value_size, c,
    HAS: tl.constexpr, LIKE: tl.constexpr, ONCE: tl.constexpr, PRECISION: tl.constexpr,
    WIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """rowsum(p * dp) over one tile of keys."""
    key = index(start, BLOCK_N, WIDE)
    live = key < keys
    k_rows = at_k[0] + key * at_k[1]
    v_rows = at_v[0] + key * at_v[1]
    d = tl.arange(0, BLOCK_D)
    k = (tile(k_rows, live, d, at_k[2], size), k_rows, live, at_k[2])
    v = (tile(v_rows, live, d, at_v[2], value_size), v_rows, live, at_v[2])
    made = _gradients(
        q, k, g, v, log, log - log, terms, key, head, law, dropout, size, value_size,
        HAS, True, True, LIKE, ONCE, PRECISION, BLOCK_D,
    )  # fmt: skip
    return tl.sum(made[1], axis=1)


@triton.jit
def _query_step(
    acc, start, q, g, log, delta, terms, head, law, dropout, at_k, at_v, keys, size, value_size, c,
    HAS: tl.constexpr, PARTIAL: tl.constexpr, LIKE: tl.constexpr, ONCE: tl.constexpr, PRECISION: tl.constexpr,
    WIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """acc + ds k over one tile of keys."""
    key = index(start, BLOCK_N, WIDE)
    live = key < keys
    k_rows = at_k[0] + key * at_k[1]
    v_rows = at_v[0] + key * at_v[1]
    k = tile(k_rows, live, c, at_k[2], size)
    v = tile(v_rows, live, tl.arange(0, BLOCK_D), at_v[2], value_size)
    _, _, ds, visible = _gradients(
        q, (k, k_rows, live, at_k[2]), g, (v, v_rows, live, at_v[2]), log, delta, terms, key, head, law, dropout,
        size, value_size, HAS, PARTIAL, True, LIKE, ONCE, PRECISION, BLOCK_D,
    )  # fmt: skip
    return add_product(acc, ds, k, visible, LIKE, True, PRECISION)


# Strides are specialised on 1 and on multiples of 16, as loads of more than one element need to know.
@triton.jit(do_not_specialize=["queries", "keys", "tiles", "heads", "group", "rules", "bound", "sizes"])
def attention_query_kernel(
    g_query, g_lse, g, query, key, value, mask, bias, slopes, cu_q, cu_k, seed, lse, delta,
    scale: tl.float64, softcap: tl.float64, left_scale: tl.float64, rules, bound,
    queries, keys, size, value_size, partial, sink, sink_h, tiles, heads, group,
    sizes, bd, bgl, bg, bq, bk, bv, bm, bb, bs, bl, be, sd, sgl, sg, sq, sk, sv, sm, sb, ss, sl, se,
    CHUNKED: tl.constexpr, HAS: tl.constexpr, WIDE: tl.constexpr, ONCE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_C columns of BLOCK_M rows of the queries' gradient; delta, and in partial[tile, head] the sum of
    -p_sink * delta."""
    pid = tl.program_id(0)
    block = tiles - 1 - pid % tiles
    INT: tl.constexpr = tl.int64 if WIDE else tl.int32
    start = block.to(INT) * BLOCK_M
    pid = pid // tiles
    columns = tl.maximum(tl.cdiv(size, BLOCK_C), 1) if g_query is not None else 1
    column = pid % columns
    head = pid // columns % heads
    batch = pid // columns // heads
    LIKE: tl.constexpr = g.dtype.element_ty
    T: tl.constexpr = delta.dtype.element_ty
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
    law = (tl.full((), scale, T), tl.full((), softcap, T), tl.full((), left_scale, T))
    dropout = counter(bound, seed)
    q_rows = matrix(query, batch, head, first_q, sizes, bq, sq) + i * sq[1]
    q = (tile(q_rows, live, c, sq[2], size), q_rows, live, sq[2])
    g_rows = matrix(g, batch, head, first_q, sizes, bg, sg) + i * sg[1]
    gt = (tile(g_rows, live, tl.arange(0, BLOCK_D), sg[2], value_size), g_rows, live, sg[2])
    lse_rows = matrix(lse, batch, head, first_q, sizes, bl, sl) + i * sl[1]
    log = tl.load(lse_rows, mask=live, other=0.0)
    seen = log != -INF
    log = tl.where(seen, log, 0.0)
    at_k = (matrix(key, batch, head // group, first_k, sizes, bk, sk), sk[1], sk[2])
    at_v = (matrix(value, batch, head // group, first_k, sizes, bv, sv), sv[1], sv[2])

    ALL: tl.constexpr = mask is not None or bias is not None
    first, last, full, full_last = key_tiles(start, n_q, n_k, rules, BLOCK_M, BLOCK_N, CHUNKED, ALL)
    own = tl.zeros((BLOCK_M,), T)
    for t in range(last - first):
        own += _delta_step(
            first + t, q, gt, log, terms, of_head, law, dropout, at_k, at_v, n_k, size, value_size, c,
            HAS, LIKE, ONCE, PRECISION, WIDE, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    if g_lse is not None:
        own -= tl.load(matrix(g_lse, batch, head, first_q, sizes, bgl, sgl) + i * sgl[1], mask=live, other=0.0)
    if column == 0:
        tl.store(matrix(delta, batch, head, first_q, sizes, be, se) + i * se[1], own, mask=live)
        if partial is not None:
            p = m.exp(tl.load(sink + head.to(tl.int64) * sink_h).to(T) - log)
            share = tl.sum(tl.where(live & seen, -p * own, 0.0), axis=0)
            tl.store(partial + (batch.to(tl.int64) * tiles + block) * heads + head, share)
    if g_query is not None:
        acc = tl.zeros((BLOCK_M, BLOCK_C), T)
        for t in range((last - first) - (full_last - full)):
            acc = _query_step(
                acc, partial_tile(t, first, full, full_last), q, gt, log, own, terms, of_head, law, dropout, at_k, at_v,
                n_k, size, value_size, c, HAS, True, LIKE, ONCE, PRECISION, WIDE, BLOCK_N, BLOCK_D,
            )  # fmt: skip
        if not ALL:
            for t in range(full_last - full):
                acc = _query_step(
                    acc, full + t, q, gt, log, own, terms, of_head, law, dropout, at_k, at_v,
                    n_k, size, value_size, c, HAS, False, LIKE, ONCE, PRECISION, WIDE, BLOCK_N, BLOCK_D,
                )  # fmt: skip
        if wild(acc):
            acc = tl.zeros((BLOCK_M, BLOCK_C), T)
            begin = first * BLOCK_N
            for t in range(tl.minimum(last * BLOCK_N, n_k) - begin):
                acc = _query_step(
                    acc, begin + t, q, gt, log, own, terms, of_head, law, dropout, at_k, at_v,
                    n_k, size, value_size, c, HAS, True, LIKE, False, PRECISION, WIDE, 1, 16,
                )  # fmt: skip
        d_rows = matrix(g_query, batch, head, first_q, sizes, bd, sd) + i * sd[1]
        store(d_rows[:, None], (c * sd[2])[None, :], acc * law[0], live[:, None] & (c < size)[None, :])


@triton.jit
def _key_step(
    gk, gv, start, k, v, key, at_q, at_g, lse_at, delta_at, n_q, n_k, rules, head, law, dropout, size, value_size, c,
    CHUNKED: tl.constexpr, HAS: tl.constexpr, PARTIAL: tl.constexpr, LIKE: tl.constexpr, ONCE: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """gk + ds' q and gv + p' g over one tile of queries."""
    i = index(start, BLOCK_M, WIDE)
    live = i < n_q
    terms = query_terms(i, n_q, n_k, rules, CHUNKED)
    q_rows = at_q[0] + i * at_q[1]
    g_rows = at_g[0] + i * at_g[1]
    q = tile(q_rows, live, c, at_q[2], size)
    g = tile(g_rows, live, c, at_g[2], value_size)
    log, delta = row_terms(lse_at[0] + i * lse_at[1], delta_at[0] + i * delta_at[1], live)
    p, _, ds, visible = _gradients(
        (q, q_rows, live, at_q[2]), k, (g, g_rows, live, at_g[2]), v, log, delta, terms, key, head, law, dropout,
        size, value_size, HAS, PARTIAL, False, LIKE, ONCE, PRECISION, BLOCK_D,
    )  # fmt: skip
    gv = add_product(gv, p, g, visible, LIKE, False, PRECISION)
    gk = add_product(gk, ds, q, visible, LIKE, True, PRECISION)
    return gk, gv


@triton.jit(do_not_specialize=["queries", "keys", "tiles", "heads", "group", "rules", "bound", "sizes"])
def attention_key_kernel(
    g_key, g_value, g, query, key, value, mask, bias, slopes, cu_q, cu_k, seed, lse, delta,
    scale: tl.float64, softcap: tl.float64, left_scale: tl.float64, rules, bound,
    queries, keys, size, value_size, tiles, heads, group, sizes, bdk, bdv, bg, bq, bk, bv, bm, bb, bs, bl, be,
    sdk, sdv, sg, sq, sk, sv, sm, sb, ss, sl, se,
    CHUNKED: tl.constexpr, HAS: tl.constexpr, WIDE: tl.constexpr, ONCE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_C columns of BLOCK_N rows of the keys' and values' gradients."""
    pid = tl.program_id(0)
    INT: tl.constexpr = tl.int64 if WIDE else tl.int32
    start = (pid % tiles).to(INT) * BLOCK_N
    pid = pid // tiles
    columns = tl.maximum(tl.cdiv(tl.maximum(size, value_size), BLOCK_C), 1)
    column = pid % columns
    kv_heads = heads // group
    kv_head = pid // columns % kv_heads
    batch = pid // columns // kv_heads
    LIKE: tl.constexpr = g.dtype.element_ty
    T: tl.constexpr = delta.dtype.element_ty
    first_q, n_q = span(INT, batch, cu_q, queries)
    first_k, n_k = span(INT, batch, cu_k, keys)
    j = start + tl.arange(0, BLOCK_N)
    live = j < n_k
    c = index(column, BLOCK_C, WIDE)
    d = tl.arange(0, BLOCK_D)
    law = (tl.full((), scale, T), tl.full((), softcap, T), tl.full((), left_scale, T))
    dropout = counter(bound, seed)
    k_rows = matrix(key, batch, kv_head, first_k, sizes, bk, sk) + j * sk[1]
    k = (tile(k_rows, live, d, sk[2], size), k_rows, live, sk[2])
    v_rows = matrix(value, batch, kv_head, first_k, sizes, bv, sv) + j * sv[1]
    v = (tile(v_rows, live, d, sv[2], value_size), v_rows, live, sv[2])

    ALL: tl.constexpr = mask is not None or bias is not None
    first, last, full, full_last = query_tiles(start, n_q, n_k, rules, BLOCK_M, BLOCK_N, CHUNKED, ALL)
    gk = tl.zeros((BLOCK_N, BLOCK_C), T)
    gv = tl.zeros((BLOCK_N, BLOCK_C), T)
    for member in range(group):
        head = kv_head * group + member
        of_head = head_terms(
            batch, head, mask, bias, slopes, first_q, first_k, queries, keys, heads, sizes, bm, bb, bs, sm, sb, ss,
            cu_q is not None,
        )  # fmt: skip
        at_q = (matrix(query, batch, head, first_q, sizes, bq, sq), sq[1], sq[2])
        at_g = (matrix(g, batch, head, first_q, sizes, bg, sg), sg[1], sg[2])
        lse_at = (matrix(lse, batch, head, first_q, sizes, bl, sl), sl[1])
        delta_at = (matrix(delta, batch, head, first_q, sizes, be, se), se[1])
        for t in range((last - first) - (full_last - full)):
            gk, gv = _key_step(
                gk, gv, partial_tile(t, first, full, full_last), k, v, j, at_q, at_g, lse_at, delta_at, n_q, n_k, rules,
                of_head, law, dropout, size, value_size, c, CHUNKED, HAS, True, LIKE, ONCE, PRECISION, WIDE, BLOCK_M,
                BLOCK_D,
            )  # fmt: skip
        if not ALL:
            for t in range(full_last - full):
                gk, gv = _key_step(
                    gk, gv, full + t, k, v, j, at_q, at_g, lse_at, delta_at, n_q, n_k, rules,
                    of_head, law, dropout, size, value_size, c, CHUNKED, HAS, False, LIKE, ONCE, PRECISION, WIDE,
                    BLOCK_M, BLOCK_D,
                )  # fmt: skip
    if wild(gk) | wild(gv):
        gk = tl.zeros((BLOCK_N, BLOCK_C), T)
        gv = tl.zeros((BLOCK_N, BLOCK_C), T)
        for member in range(group):
            head = kv_head * group + member
            of_head = head_terms(
                batch, head, mask, bias, slopes, first_q, first_k, queries, keys, heads, sizes, bm, bb, bs, sm, sb, ss,
                cu_q is not None,
            )  # fmt: skip
            at_q = (matrix(query, batch, head, first_q, sizes, bq, sq), sq[1], sq[2])
            at_g = (matrix(g, batch, head, first_q, sizes, bg, sg), sg[1], sg[2])
            lse_at = (matrix(lse, batch, head, first_q, sizes, bl, sl), sl[1])
            delta_at = (matrix(delta, batch, head, first_q, sizes, be, se), se[1])
            begin = first * BLOCK_M
            for t in range(tl.minimum(last * BLOCK_M, n_q) - begin):
                gk, gv = _key_step(
                    gk, gv, begin + t, k, v, j, at_q, at_g, lse_at, delta_at, n_q, n_k, rules,
                    of_head, law, dropout, size, value_size, c, CHUNKED, HAS, True, LIKE, False, PRECISION, WIDE, 1, 16,
                )  # fmt: skip
    if g_key is not None:
        rows = matrix(g_key, batch, kv_head, first_k, sizes, bdk, sdk) + j * sdk[1]
        store(rows[:, None], (c * sdk[2])[None, :], gk * law[0], live[:, None] & (c < size)[None, :])
    if g_value is not None:
        rows = matrix(g_value, batch, kv_head, first_k, sizes, bdv, sdv) + j * sdv[1]
        store(rows[:, None], (c * sdv[2])[None, :], gv, live[:, None] & (c < value_size)[None, :])


@triton.jit(do_not_specialize=["queries", "keys", "q_tiles", "k_tiles", "repeats", "heads", "group", "rules", "bound",
                               "sizes", "own", "own_at", "shared", "shared_at"])  # fmt: skip
def attention_bias_kernel(
    g_bias, g, query, key, value, mask, bias, slopes, cu_q, cu_k, seed, lse, delta,
    scale: tl.float64, softcap: tl.float64, left_scale: tl.float64, rules, bound,
    queries, keys, size, value_size, q_tiles, k_tiles, repeats, own, own_at, shared, shared_at, heads, group, sizes,
    bd, bg, bq, bk, bv, bm, bb, bs, bl, be, sd, sg, sq, sk, sv, sm, sb, ss, sl, se,
    ONE_ROW: tl.constexpr, ONE_COLUMN: tl.constexpr, CHUNKED: tl.constexpr, HAS: tl.constexpr, WIDE: tl.constexpr,
    ONCE: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A tile of the bias' gradient, added over the ``repeats`` heads that share it (and over queries or keys, where it
    has ONE_ROW or ONE_COLUMN): ``own`` and ``shared`` are sizes, own_at and shared_at what they count in heads."""
    pid = tl.program_id(0)
    q_tile = pid // k_tiles % q_tiles
    k_tile = pid % k_tiles
    outer = row_offset(pid // k_tiles // q_tiles, own, own_at)
    INT: tl.constexpr = tl.int64 if WIDE else tl.int32
    LIKE: tl.constexpr = g.dtype.element_ty
    T: tl.constexpr = delta.dtype.element_ty
    law = (tl.full((), scale, T), tl.full((), softcap, T), tl.full((), left_scale, T))
    dropout = counter(bound, seed)
    c = tl.arange(0, BLOCK_D)
    acc = tl.zeros((BLOCK_M, BLOCK_N), T)
    for r in range(repeats):
        number = outer + row_offset(q_tile - q_tile + r, shared, shared_at)
        batch = number // heads
        head = number % heads
        first_q, n_q = span(INT, batch, cu_q, queries)
        first_k, n_k = span(INT, batch, cu_k, keys)
        of_head = head_terms(
            batch, head, mask, bias, slopes, first_q, first_k, queries, keys, heads, sizes, bm, bb, bs, sm, sb, ss,
            cu_q is not None,
        )  # fmt: skip
        at_k = (matrix(key, batch, head // group, first_k, sizes, bk, sk), sk[1], sk[2])
        at_v = (matrix(value, batch, head // group, first_k, sizes, bv, sv), sv[1], sv[2])
        at_q = matrix(query, batch, head, first_q, sizes, bq, sq)
        at_g = matrix(g, batch, head, first_q, sizes, bg, sg)
        at_lse = matrix(lse, batch, head, first_q, sizes, bl, sl)
        at_delta = matrix(delta, batch, head, first_q, sizes, be, se)
        steps = 1
        if ONE_ROW:
            steps = tl.cdiv(n_q, BLOCK_M)
        for step in range(steps):
            i = index(q_tile + step, BLOCK_M, WIDE)
            live = i < n_q
            terms = query_terms(i, n_q, n_k, rules, CHUNKED)
            q = (tile(at_q + i * sq[1], live, c, sq[2], size), at_q + i * sq[1], live, sq[2])
            gt = (tile(at_g + i * sg[1], live, c, sg[2], value_size), at_g + i * sg[1], live, sg[2])
            log, delta_rows = row_terms(at_lse + i * sl[1], at_delta + i * se[1], live)
            start = (q_tile + step).to(INT) * BLOCK_M
            walk = key_tiles(start, n_q, n_k, rules, BLOCK_M, BLOCK_N, CHUNKED, True)
            first = walk[0]
            last = walk[1]
            if not ONE_COLUMN:
                first = tl.maximum(first, k_tile)
                last = tl.minimum(last, k_tile + 1)
            for t in range(last - first):
                j = index(first + t, BLOCK_N, WIDE)
                k_live = j < n_k
                k_rows = at_k[0] + j * at_k[1]
                v_rows = at_v[0] + j * at_v[1]
                k = (tile(k_rows, k_live, c, at_k[2], size), k_rows, k_live, at_k[2])
                v = (tile(v_rows, k_live, c, at_v[2], value_size), v_rows, k_live, at_v[2])
                made = _gradients(
                    q, k, gt, v, log, delta_rows, terms, j, of_head, law, dropout, size, value_size,
                    HAS, True, True, LIKE, ONCE, PRECISION, BLOCK_D,
                )  # fmt: skip
                acc += made[1]
    batch = outer // heads
    first_q, n_q = span(INT, batch, cu_q, queries)
    first_k, n_k = span(INT, batch, cu_k, keys)
    i = index(q_tile, BLOCK_M, WIDE)
    j = index(k_tile, BLOCK_N, WIDE)
    if ONE_ROW:
        acc = tl.sum(acc, axis=0)[None, :] + tl.zeros_like(acc)
        first_q, n_q = first_q - first_q, 1  # the only one, whatever sequence comes first
    if ONE_COLUMN:
        acc = tl.sum(acc, axis=1)[:, None] + tl.zeros_like(acc)
        first_k, n_k = first_k - first_k, 1
    d_rows = matrix(g_bias, batch, outer % heads, first_q, sizes, bd, sd) + first_k * sd[2] + i * sd[1]
    store(d_rows[:, None], (j * sd[2])[None, :], acc, (i < n_q)[:, None] & (j < n_k)[None, :])


def attention_backward(
    g_query, g_key, g_value, g_bias, g_sink, g, g_lse, query, key, value, mask, bias, slopes, sink, cu_q, cu_k, seed,
    out, lse, scale: float | None, softcap: float, dropout_p: float, rules, *, record: Record | None = None,
) -> None:  # fmt: skip
    """Those of the gradients that are not None; g_lse may be None too.

    Shapes as ``attention`` has them; g_bias is broadcast as bias is: what is repeated of it, where its strides are 0,
    gets a sum.
    """
    packed = cu_q is not None
    batch = out.shape[:-3]
    heads, queries, value_size = out.shape[-3:]
    kv_heads, keys, size = key.shape[-3:]
    device_of(out)  # refuses what Triton cannot run on
    count = math.prod(batch)
    sequences = cu_q.numel() - 1 if packed else count
    for t in (g_query, g_key, g_value, g_bias, g_sink):
        if t is not None and (packed or count * heads * queries * keys == 0):
            t.zero_()  # rows of no sequence, and where there is nothing to add up
    if count * heads * queries == 0 or sequences == 0:
        return
    delta = torch.empty((*batch, heads, queries), dtype=accumulator(out), device=out.device)

    r = rules_of(rules, scale, dropout_p, queries, keys, size)
    longest_q, longest_k = (r.longest_queries, r.longest_keys) if packed else (queries, keys)
    largest = max(size, value_size)
    has = features(mask, bias, slopes, softcap, dropout_p)
    aligned = size % 16 == value_size % 16 == 0
    plan = config(query.dtype, precision_of(query), longest_q, largest, True, has, aligned)
    mask_bytes = seen_as_bytes(mask)
    given = (g, query, key, value, mask_bytes, bias, slopes)
    random = seed if dropout_p > 0 else None
    numbers = (r.scale, float(softcap), r.left_scale, r.visible, r.bound, queries, keys, size, value_size)

    def run(kernel, outputs, grid: int, counts: tuple, **more: bool) -> None:
        if grid == 0:
            return
        o = operands(batch, *outputs, *given, lse, delta)
        launch(
            kernel,
            grid,
            (*outputs, *given, cu_q, cu_k, random, lse, delta, *numbers, *counts, heads, heads // kv_heads, o.sizes,
             *o.batches, *o.strides),
            {**more, "CHUNKED": r.chunked, "HAS": has, "WIDE": o.wide,
             **plan.meta()},
            f"queries={queries} keys={keys} size={size} {plan}",
            out,
            record,
        )  # fmt: skip

    tiles = blocks(longest_q, plan.block_m)
    partial = None
    if g_sink is not None:
        partial = torch.empty((sequences * tiles, heads), dtype=delta.dtype, device=out.device)
    columns = max(1, blocks(size, plan.block_c)) if g_query is not None else 1
    run(
        attention_query_kernel,
        (g_query, g_lse),
        tiles * columns * heads * sequences,
        (partial, None if partial is None else sink, 0 if partial is None else sink.stride(0), tiles),
    )
    if partial is not None:
        fold(g_sink, partial, record)
    if g_key is not None or g_value is not None:
        tiles = blocks(longest_k, plan.block_n)
        columns = max(1, blocks(largest, plan.block_c))
        run(attention_key_kernel, (g_key, g_value), tiles * columns * kv_heads * sequences, (tiles,))
    if g_bias is not None:
        row, column = (g_bias.stride(d) == 0 or g_bias.shape[d] == 1 for d in (-2, -1))
        # heads in each dim of batches (or of sequences, which share a bias only where it has one row and one column)
        dims = [sequences, heads] if packed else [*batch, heads]
        steps = [math.prod(dims[d + 1 :]) for d in range(len(dims))]
        repeated = [row and column, g_bias.stride(-3) == 0] if packed else [s == 0 for s in g_bias.stride()[:-2]]
        own, shared = ([(n, s) for n, s, again in zip(dims, steps, repeated, strict=True) if again is which][::-1]
                       for which in (False, True))  # fmt: skip
        (own, own_at), (shared, shared_at) = (tuple(zip(*x, strict=True)) or ((1,), (0,)) for x in (own, shared))
        tiles = (1 if row else blocks(longest_q, plan.block_m)), (1 if column else blocks(longest_k, plan.block_n))
        run(
            attention_bias_kernel,
            (g_bias,),
            math.prod(own) * math.prod(tiles),
            (*tiles, math.prod(shared), own, own_at, shared, shared_at),
            ONE_ROW=row,
            ONE_COLUMN=column,
        )
