"""Layer norm and RMS norm over the last dimensions, forward and backward; without a mean it is the RMS norm.

A program holds a tile of ROWS neighbouring rows by BLOCK elements. Where whole rows fit, they are read once and stay in
registers: the mean first, then the squares of the deviations from it. Longer rows take one pass in which every lane
keeps running moments (Welford, 1962), joined across lanes at its end as Chan, Golub and LeVeque (1983) do, and a second
that writes. The gradients of weight and bias are sums over chunks of the rows, the chunks added in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import triton
import triton.language as tl

from . import _math as m
from ._common import (
    Device,
    Layout,
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
    offset,
    power_of_two,
    row_offset,
    store,
)

# Longest row held in registers: 8,192 values over 16 warps are 16 a thread; a gradient holds two rows.
LONGEST = 8192


@triton.jit
def _tile(rows, groups, ROWS: tl.constexpr):
    """Outer row and the ROWS inner rows of this program."""
    pid = tl.program_id(0)
    return pid // groups, (pid % groups).to(tl.int64) * ROWS + tl.arange(0, ROWS)


@triton.jit
def _rstd(variance, EPS: tl.constexpr):
    v = variance + EPS
    if v.dtype == tl.float64:
        return 1.0 / tl.sqrt(v)
    else:
        return m.divide(tl.full(v.shape, 1.0, v.dtype), tl.sqrt_rn(v))


@triton.jit
def _finish(v, weight, bias, k, sizes, iw, ib, mask):
    if weight is not None:
        v = v * load(weight, offset(k, sizes, iw, 1), mask)
    if bias is not None:
        v = v + load(bias, offset(k, sizes, ib, 1), mask)
    return v


# Strides are specialised on 1 and on multiples of 16, as loads of more than one element need to know.
@triton.jit(do_not_specialize=["rows", "groups", "outer"])
def norm_kernel(
    y, x, weight, bias, mean, rstd, length, rows, groups, outer, sy, sx, ss, y_r, x_r, s_r, inner, iy, ix, iw, ib,
    EPS: tl.constexpr, ONCE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = (x - mean) * rstd * weight + bias over rows of ``length`` elements with sizes ``inner`` and strides i."""
    place, r = _tile(rows, groups, ROWS)
    live = (r < rows)[:, None]
    x += row_offset(place, outer, sx)
    y += row_offset(place, outer, sy)
    at_s = row_offset(place, outer, ss) + r * s_r
    k = tl.arange(0, BLOCK).to(tl.int64)[None, :]
    at_x = (r * x_r)[:, None]
    at_y = (r * y_r)[:, None]
    mask = live & (k < length)
    v = load(x, at_x + offset(k, inner, ix, 1), mask)
    n = tl.full((), length, v.dtype)
    if ONCE:
        if mean is not None:
            center = m.divide(tl.sum(v, axis=1), n)[:, None]
            d = tl.where(mask, v - center, 0.0)
            left = m.divide(tl.sum(d, axis=1), n)[:, None]
        else:
            d = v
        squares = tl.sum(d * d, axis=1)[:, None]
    elif mean is None:
        square = v * v
        for start in range(BLOCK, length, BLOCK):
            v = load(x, at_x + offset(start + k, inner, ix, 1), live & (start + k < length))
            square = square + v * v
        squares = tl.sum(square, axis=1)[:, None]
    else:
        # each lane's count, mean and squared deviations; the first tile is full
        count = tl.full((1, BLOCK), 1.0, v.dtype)
        own = v
        square = v - v
        for start in range(BLOCK, length, BLOCK):
            mask = live & (start + k < length)
            v = load(x, at_x + offset(start + k, inner, ix, 1), mask)
            more = tl.where(start + k < length, count + 1.0, count)
            delta = tl.where(mask, v - own, 0.0)
            own = own + m.divide(delta, more)
            square = square + delta * tl.where(mask, v - own, 0.0)
            count = more
        center = m.divide(tl.sum(count * own, axis=1), n)[:, None]
        left = m.divide(tl.sum(count * (own - center), axis=1), n)[:, None]
        squares = tl.sum(square + count * (own - center) * (own - center), axis=1)[:, None]
    if mean is not None:
        # what the mean's rounding left: a row far from 0 comes out as well as its deviations alone
        scale = _rstd(m.divide(squares, n) - left * left, EPS)
        tl.store(mean + at_s[:, None], center + left, mask=live)
    else:
        scale = _rstd(m.divide(squares, n), EPS)
    tl.store(rstd + at_s[:, None], scale, mask=live)
    if ONCE:
        if mean is not None:
            v = (v - center) - left
        store(y, at_y + offset(k, inner, iy, 1), _finish(v * scale, weight, bias, k, inner, iw, ib, mask), mask)
    else:
        for start in range(0, length, BLOCK):
            e = start + k
            mask = live & (e < length)
            v = load(x, at_x + offset(e, inner, ix, 1), mask)
            if mean is not None:
                v = (v - center) - left
            store(y, at_y + offset(e, inner, iy, 1), _finish(v * scale, weight, bias, e, inner, iw, ib, mask), mask)


@triton.jit
def _terms(g, x, weight, center, at_g, at_x, k, sizes, ig, ix, iw, mask, MEAN: tl.constexpr):
    """u = g * weight and d = x - mean of a tile, 0 beyond the rows."""
    u = load(g, at_g + offset(k, sizes, ig, 1), mask)
    if weight is not None:
        u = u * load(weight, offset(k, sizes, iw, 1), mask)
    d = load(x, at_x + offset(k, sizes, ix, 1), mask)
    if MEAN:
        d = tl.where(mask, d - center, 0.0)
    return u, d


@triton.jit(do_not_specialize=["rows", "groups", "outer"])
def norm_backward_kernel(
    gx, g, x, weight, mean, rstd, length, rows, groups, outer, so, sg, sx, ss, o_r, g_r, x_r, s_r,
    inner, io, ig, ix, iw,
    MEAN: tl.constexpr, ONCE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gx = rstd * (u - mean(u) - d * rstd^2 * mean(u * d)) with u = g * weight, d = x - mean."""
    place, r = _tile(rows, groups, ROWS)
    live = (r < rows)[:, None]
    g += row_offset(place, outer, sg)
    x += row_offset(place, outer, sx)
    gx += row_offset(place, outer, so)
    at_s = (row_offset(place, outer, ss) + r * s_r)[:, None]
    scale = tl.load(rstd + at_s, mask=live, other=0.0)
    n = tl.full((), length, scale.dtype)
    center = tl.load(mean + at_s, mask=live, other=0.0) if MEAN else scale
    k = tl.arange(0, BLOCK).to(tl.int64)[None, :]
    at_g = (r * g_r)[:, None]
    at_x = (r * x_r)[:, None]
    at_o = (r * o_r)[:, None]
    mask = live & (k < length)
    u, d = _terms(g, x, weight, center, at_g, at_x, k, inner, ig, ix, iw, mask, MEAN)
    plain = u
    product = u * d
    if not ONCE:
        for start in range(BLOCK, length, BLOCK):
            e = start + k
            u, d = _terms(g, x, weight, center, at_g, at_x, e, inner, ig, ix, iw, live & (e < length), MEAN)
            plain = plain + u
            product = product + u * d
    b = m.divide(tl.sum(product, axis=1)[:, None] * scale, n) * scale * scale
    a = scale - scale
    if MEAN:
        a = scale * m.divide(tl.sum(plain, axis=1)[:, None], n)
    if ONCE:
        store(gx, at_o + offset(k, inner, io, 1), u * scale - a - d * b, mask)
    else:
        for start in range(0, length, BLOCK):
            e = start + k
            mask = live & (e < length)
            u, d = _terms(g, x, weight, center, at_g, at_x, e, inner, ig, ix, iw, mask, MEAN)
            store(gx, at_o + offset(e, inner, io, 1), u * scale - a - d * b, mask)


@triton.jit(do_not_specialize=["n", "cols", "rows", "outer", "sg", "sx", "ss", "inner", "ig", "ix"])
def norm_columns_kernel(
    weights, biases, g, x, mean, rstd, n, cols, rows, outer, sg, sx, ss, inner, ig, ix,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """weights[chunk, c] = the chunk's sum of g * (x - mean) * rstd, biases[chunk, c] = its sum of g."""
    groups = tl.cdiv(cols, BLOCK_C)
    chunk = tl.program_id(0) // groups
    c = index(tl.program_id(0) % groups, BLOCK_C, True)
    at_g = offset(c, inner, ig, 1)[None, :]
    at_x = offset(c, inner, ix, 1)[None, :]
    acc_w = tl.zeros((BLOCK_R, BLOCK_C), rstd.dtype.element_ty)
    acc_b = tl.zeros((BLOCK_R, BLOCK_C), rstd.dtype.element_ty)
    for step in range(tl.cdiv(rows, BLOCK_R)):
        r = index(chunk * tl.cdiv(rows, BLOCK_R) + step, BLOCK_R, True)
        mask = (r < n)[:, None] & (c < cols)[None, :]
        u = load(g, offset(r, outer, sg, 1)[:, None] + at_g, mask)
        if biases is not None:
            acc_b += u
        if weights is not None:
            at_s = offset(r, outer, ss, 1)[:, None]
            d = load(x, offset(r, outer, sx, 1)[:, None] + at_x, mask)
            if mean is not None:
                d = d - tl.load(mean + at_s, mask=(r < n)[:, None], other=0.0)
            acc_w += tl.where(mask, u * d * tl.load(rstd + at_s, mask=(r < n)[:, None], other=0.0), 0.0)
    at = chunk.to(tl.int64) * cols + c
    if weights is not None:
        tl.store(weights + at, tl.sum(acc_w, axis=0), mask=c < cols)
    if biases is not None:
        tl.store(biases + at, tl.sum(acc_b, axis=0), mask=c < cols)


@dataclass(frozen=True)
class Plan:
    """ROWS by BLOCK tile; ``once``: the tile holds whole rows."""

    rows: int
    block: int
    once: bool
    warps: int

    def __str__(self) -> str:
        return f"{'registers' if self.once else 'two passes'} tile={self.rows}x{self.block} warps={self.warps}"


def config(length: int, neighbours: int, two: bool, device: Device | None = None) -> Plan:
    """Tile for rows of ``length`` elements; ``two``: the kernel holds two rows in registers."""
    block = power_of_two(length)
    once = block <= (LONGEST // 2 if two else LONGEST)
    block = block if once else 2048
    rows = min(power_of_two(neighbours), max(1, 1024 // block))
    tile = rows * block * (2 if two else 1)
    return Plan(rows, block, once, 4 if tile <= 2048 else 8 if tile <= 4096 else 16)


def _dims(layout: Layout) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Sizes and strides, of at least one dimension."""
    return (layout.sizes, layout.strides) if layout.sizes else ((1,), tuple((0,) for _ in layout.strides))


def _parts(t: torch.Tensor, row_dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides over the rows and along a row."""
    split = t.dim() - row_dims
    return t.stride()[:split], t.stride()[split:]


def _run_rows(kernel, tensors, parameters, mean, rstd, row_dims: int, meta: dict, record: Record | None) -> None:
    """``tensors`` output first, ``parameters`` of a row's shape or None."""
    out = tensors[0]
    if out.numel() == 0:
        return
    outer_strides, inner_strides = zip(*(_parts(t, row_dims) for t in tensors), strict=True)
    split = out.dim() - row_dims
    absent = (0,) * row_dims
    inner_strides += tuple(absent if p is None else p.stride() for p in parameters)
    rows = collapse(out.shape[:split], *outer_strides, rstd.stride())
    sizes, strides = _dims(rows)
    inner, along = _dims(collapse(out.shape[split:], *inner_strides))
    length = out.shape[split:].numel()
    plan = config(length, sizes[0], len(tensors) > 2, device_of(out))
    groups = blocks(sizes[0], plan.rows)
    launch(
        kernel,
        groups * (rows.count // sizes[0]),
        (
            *tensors, *parameters, mean, rstd, length, sizes[0], groups, sizes[1:], *(s[1:] for s in strides),
            *(s[0] for s in strides), inner, *along,
        ),
        {**meta, "ONCE": plan.once, "ROWS": plan.rows, "BLOCK": plan.block, "num_warps": plan.warps},
        plan,
        out,
        record,
    )  # fmt: skip


def normalize(y, x, weight, bias, mean, rstd, row_dims: int, eps: float, *, record: Record | None = None) -> None:
    """y = (x - mean) * rstd * weight + bias over the last ``row_dims`` dimensions; mean None: the RMS norm."""
    _run_rows(norm_kernel, (y, x), (weight, bias), mean, rstd, row_dims, {"EPS": eps}, record)


def normalize_backward(gx, gw, gb, g, x, weight, mean, rstd, row_dims: int, *, record: Record | None = None) -> None:
    """Those of the gradients in x, weight and bias that are not None."""
    if gx is not None:
        meta = {"MEAN": mean is not None}
        _run_rows(norm_backward_kernel, (gx, g, x), (weight,), mean, rstd, row_dims, meta, record)
    like = gw if gw is not None else gb
    if like is None or like.numel() == 0:
        return
    cols, split = like.numel(), x.dim() - row_dims
    (g_out, g_in), (x_out, x_in) = _parts(g, row_dims), _parts(x, row_dims)
    rows = collapse(x.shape[:split], g_out, x_out, rstd.stride())
    if rows.count == 0:
        for out in (gw, gb):
            if out is not None:
                out.zero_()
        return
    outer, strides = _dims(rows)
    # ordered as the contiguous sums are
    inner, along = _dims(collapse(x.shape[split:], like.stride(), g_in, x_in))
    plan = columns(rows.count, cols, False, device_of(x), 512 if x.element_size() == 8 else 1024)
    weights, biases = (
        None if out is None else torch.empty((plan.chunks, cols), dtype=accumulator(x), device=x.device)
        for out in (gw, gb)
    )
    launch(
        norm_columns_kernel,
        plan.chunks * blocks(cols, plan.block_c),
        (weights, biases, g, x, mean, rstd, rows.count, cols, plan.rows, outer, *strides, inner, *along[1:]),
        plan.meta(),
        plan,
        x,
        record,
    )
    for out, partial in ((gw, weights), (gb, biases)):
        if partial is not None:
            fold(out.reshape(-1), partial, record)
