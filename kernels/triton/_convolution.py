"""The kernels of convolutions: products over positions, taps and channels, and what a padded gradient folds into.

A product's rows are positions (image, depth, height, width), its columns channels of the result, and k runs over taps
and, inside of a tap, over the channels of what is read. Along an axis, position q and tap j read pixel A q + B + C j:
stride, padding and dilation of a convolution, or one phase of a data gradient, whose positions share their taps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._common import INTERPRET, index, load, store, widen


@triton.jit
def pixel_at(at, size, MODE: tl.constexpr):
    """The pixel that a padded image has at this place; outside of the image where it has a zero."""
    if MODE == 1:
        at = tl.where(at < 0, -at, at)
        at = tl.where(at >= size, 2 * (size - 1) - at, at)
    elif MODE == 2:
        at = tl.minimum(tl.maximum(at, 0), size - 1)
    elif MODE == 3:
        at = tl.where(at < 0, at + size, at)
        at = tl.where(at >= size, at - size, at)
    return at


@triton.jit
def positions(m, sizes):
    """(image, depth, height, width) of position number m."""
    w = m % sizes[2]
    h = m // sizes[2] % sizes[1]
    d = m // sizes[2] // sizes[1] % sizes[0]
    return m // sizes[2] // sizes[1] // sizes[0], d, h, w


@triton.jit
def source_of(n, d, h, w, j, taps, source, strides, a, b, c, MODE: tl.constexpr):
    """Offsets of the pixels that tap j reads, and whether there is one."""
    j = tl.full((), 1, n.dtype) * j
    s0 = c[0] * (j // taps[2] // taps[1])
    s1 = c[1] * (j // taps[2] % taps[1])
    s2 = c[2] * (j % taps[2])
    d = d * a[0] + b[0]
    h = h * a[1] + b[1]
    w = w * a[2] + b[2]
    p0 = pixel_at(d + s0, source[0], MODE)
    p1 = pixel_at(h + s1, source[1], MODE)
    p2 = pixel_at(w + s2, source[2], MODE)
    inside = (p0 >= 0) & (p0 < source[0]) & (p1 >= 0) & (p1 < source[1]) & (p2 >= 0) & (p2 < source[2])
    if MODE == 0:
        # but for the tap's own, the same number for all, an offset is that of any other tap: the loop keeps it
        at = n * strides[0] + d * strides[2] + h * strides[3] + w * strides[4]
        return at + (s0 * strides[2] + s1 * strides[3] + s2 * strides[4]), inside
    else:
        return n * strides[0] + p0 * strides[2] + p1 * strides[3] + p2 * strides[4], inside


@triton.jit
def tap_offset(j, taps, first, step):
    """Where tap j lies in the weight."""
    j2 = j % taps[2]
    j1 = j // taps[2] % taps[1]
    j0 = j // taps[2] // taps[1]
    return first + j0 * step[0] + j1 * step[1] + j2 * step[2]


@triton.jit
def finish(
    acc, n, d, h, w, first, live_m, base, R, out, bias, residual, preact, so, sr, sp, bias_step, p0, p1,
    F: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """preact = acc + bias, out = f(preact) + residual, of R channels behind ``base``; ``acc`` starts at ``first``.

    Wide ones are finished in halves, as matmul's epilogue does: an activation of all at once takes too many registers.
    """
    if acc.shape[1] > COLUMNS:
        HALF: tl.constexpr = acc.shape[1] // 2
        left, right = tl.split(tl.permute(tl.reshape(acc, (acc.shape[0], 2, HALF)), (0, 2, 1)))
        finish(
            left, n, d, h, w, first, live_m, base, R, out, bias, residual, preact, so, sr, sp, bias_step, p0, p1,
            F, COLUMNS,
        )  # fmt: skip
        finish(
            right, n, d, h, w, first + HALF, live_m, base, R, out, bias, residual, preact, so, sr, sp, bias_step,
            p0, p1, F, COLUMNS,
        )  # fmt: skip
    else:
        own = (first + tl.arange(0, acc.shape[1]))[None, :]
        live = live_m & (own < R)
        r = own + base
        if bias is not None:
            acc += load(bias, r * bias_step, own < R)
        if preact is not None:
            store(preact, n * sp[0] + d * sp[2] + h * sp[3] + w * sp[4] + r * sp[1], acc, live)
        y = F(acc, tl.full((), p0, acc.dtype), tl.full((), p1, acc.dtype))
        if residual is not None:
            y += load(residual, n * sr[0] + d * sr[2] + h * sr[3] + w * sr[4] + r * sr[1], live)
        store(out, n * so[0] + d * so[2] + h * so[3] + w * so[4] + r * so[1], y, live)


@triton.jit(do_not_specialize=["M"])
def product_kernel(
    out, x, weight, bias, residual, preact, p0: tl.float64, p1: tl.float64, M, R, K, groups,
    sizes, taps, source, a, b, c, sx, so, sr, sp, w_row, w_channel, w_group, w_first, w_step, bias_step,
    F: tl.constexpr, MODE: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """R channels of M positions for each group, K channels read at every tap, in one loop over both."""
    tiles_n = tl.cdiv(R, BLOCK_N)
    pid = tl.program_id(0)
    group = pid % groups
    m = index(pid // groups // tiles_n, BLOCK_M, WIDE)
    first = pid // groups % tiles_n * BLOCK_N
    k = tl.arange(0, BLOCK_K)
    if WIDE:
        first = first.to(tl.int64)
        k = k.to(tl.int64)
    r = first + tl.arange(0, BLOCK_N)
    n, d, h, w = positions(m, sizes)
    T: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_M, BLOCK_N), T)
    x += group.to(tl.int64) * K * sx[1]
    weight += group.to(tl.int64) * w_group
    steps = tl.cdiv(K, BLOCK_K)
    for step in range(taps[0] * taps[1] * taps[2] * steps):
        j = step // steps
        pixel, inside = source_of(n, d, h, w, j, taps, source, sx, a, b, c, MODE)
        i = step % steps * BLOCK_K + k
        u = tl.load(
            x + pixel[:, None] + i[None, :] * sx[1], mask=(inside & (m < M))[:, None] & (i < K)[None, :], other=0.0
        )
        v = tl.load(
            weight + tap_offset(j, taps, w_first, w_step) + i[:, None] * w_channel + r[None, :] * w_row,
            mask=(i < K)[:, None] & (r < R)[None, :],
            other=0.0,
        )
        # The interpreter cannot multiply bf16; its products are exact in f32.
        if INTERPRET:
            u = widen(u)
            v = widen(v)
        acc = tl.dot(u, v, acc, input_precision=PRECISION, out_dtype=T)
    finish(
        acc, n[:, None], d[:, None], h[:, None], w[:, None], first, (m < M)[:, None], (group * R).to(m.dtype), R,
        out, bias, residual, preact, so, sr, sp, bias_step, p0, p1, F, COLUMNS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["M"])
def direct_kernel(
    out, x, weight, bias, residual, preact, p0: tl.float64, p1: tl.float64, M, R, K, groups,
    sizes, taps, source, a, b, c, sx, so, sr, sp, w_row, w_channel, w_group, w_first, w_step, bias_step,
    F: tl.constexpr, MODE: tl.constexpr, WIDE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The same without tensor cores, for groups of few channels: columns are those of all groups."""
    all = groups * R
    tiles_n = tl.cdiv(all, BLOCK_N)
    pid = tl.program_id(0)
    m = index(pid // tiles_n, BLOCK_M, WIDE)
    first_r = (pid % tiles_n * BLOCK_N).to(m.dtype)
    r = first_r + tl.arange(0, BLOCK_N)
    n, d, h, w = positions(m, sizes)
    T: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_M, BLOCK_N), T)
    group = r // R
    first = (group * K).to(m.dtype)
    own = (group.to(tl.int64) * w_group) + (r % R).to(tl.int64) * w_row
    for j in range(taps[0] * taps[1] * taps[2]):
        pixel, inside = source_of(n, d, h, w, j, taps, source, sx, a, b, c, MODE)
        live = (inside & (m < M))[:, None] & (r < all)[None, :]
        tap = tap_offset(j, taps, w_first, w_step).to(tl.int64)
        for i in range(K):
            u = load(x, pixel[:, None] + (first + i)[None, :] * sx[1], live)
            v = load(weight, own + tap, r < all)
            tap += w_channel
            acc += u * v[None, :]
    finish(
        acc, n[:, None], d[:, None], h[:, None], w[:, None], first_r, (m < M)[:, None], (pid * 0).to(m.dtype), all,
        out, bias, residual, preact, so, sr, sp, bias_step, p0, p1, F, BLOCK_N,
    )  # fmt: skip


@triton.jit(do_not_specialize=["M", "rows"])
def weight_kernel(
    partial, x, g, M, rows, R, C, groups, sizes, taps, source, a, b, c, sx, sg,
    MODE: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """partial[chunk, group, o, c, tap] = the sum over a chunk's ``rows`` positions of g[o] x[c at tap]."""
    tiles_o = tl.cdiv(R, BLOCK_O)
    tiles_c = tl.cdiv(C, BLOCK_C)
    count = taps[0] * taps[1] * taps[2]
    pid = tl.program_id(0)
    j = pid % count
    group = pid // count % groups
    tile = pid // count // groups
    chunk = tile // (tiles_o * tiles_c)
    o = index(tile % tiles_o, BLOCK_O, WIDE)
    i = index(tile // tiles_o % tiles_c, BLOCK_C, WIDE)
    x += group.to(tl.int64) * C * sx[1]
    g += group.to(tl.int64) * R * sg[1]
    T: tl.constexpr = partial.dtype.element_ty
    acc = tl.zeros((BLOCK_O, BLOCK_C), T)
    for step in range(tl.cdiv(rows, BLOCK_M)):
        m = index(chunk * tl.cdiv(rows, BLOCK_M) + step, BLOCK_M, WIDE)
        n, d, h, w = positions(m, sizes)
        pixel, inside = source_of(n, d, h, w, j, taps, source, sx, a, b, c, MODE)
        at = n * sg[0] + d * sg[2] + h * sg[3] + w * sg[4]
        u = tl.load(g + o[:, None] * sg[1] + at[None, :], mask=(o < R)[:, None] & (m < M)[None, :], other=0.0)
        v = tl.load(
            x + pixel[:, None] + i[None, :] * sx[1], mask=(inside & (m < M))[:, None] & (i < C)[None, :], other=0.0
        )
        if INTERPRET:
            u = widen(u)
            v = widen(v)
        acc = tl.dot(u, v, acc, input_precision=PRECISION, out_dtype=T)
    row = (chunk.to(tl.int64) * groups + group) * R + o
    tl.store(partial + (row[:, None] * C + i[None, :]) * count + j, acc, mask=(o < R)[:, None] & (i < C)[None, :])


@triton.jit(do_not_specialize=["M", "rows"])
def direct_weight_kernel(
    partial, x, g, M, rows, R, C, groups, sizes, taps, source, a, b, c, sx, sg,
    MODE: tl.constexpr, WIDE: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The same without tensor cores, of one channel of each group: columns are the result's channels of all groups."""
    all = groups * R
    count = taps[0] * taps[1] * taps[2]
    pid = tl.program_id(0)
    j = pid % count
    i = pid // count % C
    tile = pid // count // C
    tiles_o = tl.cdiv(all, BLOCK_O)
    chunk = tile // tiles_o
    o = index(tile % tiles_o, BLOCK_O, WIDE)
    T: tl.constexpr = partial.dtype.element_ty
    acc = tl.zeros((BLOCK_M, BLOCK_O), T)
    for step in range(tl.cdiv(rows, BLOCK_M)):
        m = index(chunk * tl.cdiv(rows, BLOCK_M) + step, BLOCK_M, WIDE)
        n, d, h, w = positions(m, sizes)
        pixel, inside = source_of(n, d, h, w, j, taps, source, sx, a, b, c, MODE)
        at = n * sg[0] + d * sg[2] + h * sg[3] + w * sg[4]
        live = (inside & (m < M))[:, None] & (o < all)[None, :]
        u = load(g, at[:, None] + o[None, :] * sg[1], live)
        v = load(x, pixel[:, None] + (o // R * C + i)[None, :] * sx[1], live)
        acc += u * v
    row = chunk.to(tl.int64) * all + o
    tl.store(partial + (row * C + i) * count + j, tl.sum(acc, axis=0), mask=o < all)


@triton.jit
def gather_kernel(out, partial, count, chunks, C, taps, so, BLOCK: tl.constexpr):
    """out[o, c, tap] = the chunks' sums, in order."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), partial.dtype.element_ty)
    for _ in range(chunks):
        acc += tl.load(partial + e, mask=e < count, other=0.0)
        partial += count
    j, d = e % taps[2], e // taps[2] // taps[1] % taps[0]
    h = e // taps[2] % taps[1]
    i = e // taps[2] // taps[1] // taps[0] % C
    o = e // taps[2] // taps[1] // taps[0] // C
    store(out, o * so[0] + i * so[1] + d * so[2] + h * so[3] + j * so[4], acc, e < count)


@triton.jit(do_not_specialize=["M", "rows"])
def sums_kernel(partial, g, M, rows, C, sizes, sg, WIDE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """partial[chunk, c] = the sum of a chunk's ``rows`` positions of channel c."""
    tiles = tl.cdiv(C, BLOCK_C)
    chunk = tl.program_id(0) // tiles
    c = index(tl.program_id(0) % tiles, BLOCK_C, WIDE)
    acc = tl.zeros((BLOCK_M, BLOCK_C), partial.dtype.element_ty)
    for step in range(tl.cdiv(rows, BLOCK_M)):
        m = index(chunk * tl.cdiv(rows, BLOCK_M) + step, BLOCK_M, WIDE)
        n, d, h, w = positions(m, sizes)
        at = n * sg[0] + d * sg[2] + h * sg[3] + w * sg[4]
        acc += load(g, at[:, None] + c[None, :] * sg[1], (m < M)[:, None] & (c < C)[None, :])
    tl.store(partial + chunk.to(tl.int64) * C + c, tl.sum(acc, axis=0), mask=c < C)


@triton.jit
def place_of(i, j, size, before, behind, MODE: tl.constexpr):
    """Candidate j for a place of a padded image that reads pixel i, and whether it does."""
    j = i * 0 + j
    if MODE == 2:  # the ends stand for all of the padding
        first = j <= before
        place = tl.where(j == 0, i + before, tl.where(first, j - 1, size + j - 1))
        reads = (j == 0) | (first & (i == 0)) | ((j > before) & (i == size - 1))
        return place, reads
    elif MODE == 1:
        place = tl.where(j == 0, i + before, tl.where(j == 1, before - i, before + 2 * (size - 1) - i))
        reads = (
            (j == 0) | ((j == 1) & (i >= 1) & (i <= before)) | ((j == 2) & (i < size - 1) & (i >= size - 1 - behind))
        )
        return place, reads
    else:
        place = tl.where(j == 0, i + before, tl.where(j == 1, i + before - size, i + before + size))
        reads = (j == 0) | ((j == 1) & (i >= size - before)) | ((j == 2) & (i < behind))
        return place, reads


@triton.jit
def fold_padding_kernel(
    out, padded, M, C, sizes, before, behind, many, so, sp, MODE: tl.constexpr, BLOCK: tl.constexpr
):
    """out[pixel] = the sum of all places of the padded image that read it, in the same order every time."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = e < tl.full((), M, tl.int64) * C
    n, d, h, w = positions(e // C, sizes)
    c = e % C
    acc = tl.zeros((BLOCK,), tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32)
    for j in range(many[0] * many[1] * many[2]):
        p0, r0 = place_of(d, j // many[2] // many[1], sizes[0], before[0], behind[0], MODE)
        p1, r1 = place_of(h, j // many[2] % many[1], sizes[1], before[1], behind[1], MODE)
        p2, r2 = place_of(w, j % many[2], sizes[2], before[2], behind[2], MODE)
        at = n * sp[0] + c * sp[1] + p0 * sp[2] + p1 * sp[3] + p2 * sp[4]
        acc += load(padded, at, live & r0 & r1 & r2)
    store(out, n * so[0] + c * so[1] + d * so[2] + h * so[3] + w * so[4], acc, live)
