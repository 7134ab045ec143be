"""Softmax, log-softmax and softmin over any dimension, forward and backward.

A program holds a tile of ROWS neighbouring rows by BLOCK elements of the dimension. Where the whole dimension fits,
it is read once and stays in registers; longer ones take two passes, the first keeping a running maximum and a
rescaled sum in every lane (the online softmax of Milakov and Gimelshein, 2018), joined across lanes at its end.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from . import _math as m
from ._common import (
    Device,
    Record,
    blocks,
    collapse,
    constant,
    device_of,
    launch,
    load,
    power_of_two,
    row_offset,
    store,
)

SOFTMAX = constant(0)
LOG_SOFTMAX = constant(1)
SOFTMIN = constant(2)
NAMES = ("softmax", "log_softmax", "softmin")

# Longest row held in registers: 8,192 values over 16 warps are 16 a thread.
LONGEST = 8192


@triton.jit
def _tile(rows, groups, ROWS: tl.constexpr):
    """Outer row and the ROWS inner rows of this program."""
    pid = tl.program_id(0)
    return pid // groups, (pid % groups).to(tl.int64) * ROWS + tl.arange(0, ROWS)


@triton.jit
def _value(v, e, total, KIND: tl.constexpr):
    if KIND == LOG_SOFTMAX:
        return v - tl.log(total)
    else:
        return m.divide(e, total)


# Strides are specialised on 1 and on multiples of 16, as loads of more than one element need to know.
@triton.jit(do_not_specialize=["rows", "groups", "sizes"])
def softmax_kernel(
    out, x, length, rows, groups, sizes, so, sx, out_k, x_k, out_r, x_r,
    KIND: tl.constexpr, ONCE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = softmax(x) along a dimension of ``length`` elements and stride x_k; inner rows have stride x_r."""
    outer, r = _tile(rows, groups, ROWS)
    live = (r < rows)[:, None]
    x += row_offset(outer, sizes, sx)
    out += row_offset(outer, sizes, so)
    k = tl.arange(0, BLOCK).to(tl.int64)[None, :]
    at_x = (r * x_r)[:, None]
    at_out = (r * out_r)[:, None]
    if ONCE:
        mask = live & (k < length)
        v = load(x, at_x + k * x_k, mask)
        if KIND == SOFTMIN:
            v = -v
        top = tl.max(tl.where(mask, v, float("-inf")), axis=1)[:, None]
        e = tl.where(mask, m.exp(v - top), 0.0)
        total = tl.sum(e, axis=1)[:, None]
        store(out, at_out + k * out_k, _value(v - top, e, total, KIND), mask)
    else:
        first = load(x, at_x + k * x_k, live & (k < length))
        if KIND == SOFTMIN:
            first = -first
        best = tl.where(live & (k < length), first, float("-inf"))
        # A lane that has seen nothing but -inf counts from 0, to stay clear of -inf - -inf.
        acc = m.exp(best - tl.where(best == float("-inf"), 0.0, best))
        for start in range(BLOCK, length, BLOCK):
            mask = live & (start + k < length)
            v = load(x, at_x + (start + k) * x_k, mask)
            if KIND == SOFTMIN:
                v = -v
            v = tl.where(mask, v, float("-inf"))
            # NaN must reach the sum, and a maximum drops it.
            new = tl.where(v > best, v, best)
            base = tl.where(new == float("-inf"), 0.0, new)
            acc = acc * m.exp(best - base) + m.exp(v - base)
            best = new
        top = tl.max(best, axis=1)[:, None]
        base = tl.where(top == float("-inf"), 0.0, top)
        total = tl.sum(acc * m.exp(best - base), axis=1)[:, None]
        for start in range(0, length, BLOCK):
            mask = live & (start + k < length)
            v = load(x, at_x + (start + k) * x_k, mask)
            if KIND == SOFTMIN:
                v = -v
            store(out, at_out + (start + k) * out_k, _value(v - top, m.exp(v - top), total, KIND), mask)


@triton.jit
def _terms(u, v, KIND: tl.constexpr):
    """What a backward sums along the dimension."""
    if KIND == LOG_SOFTMAX:
        return u
    else:
        return u * v


@triton.jit
def _gradient(u, v, total, KIND: tl.constexpr):
    if KIND == LOG_SOFTMAX:
        return u - m.exp(v) * total
    elif KIND == SOFTMIN:
        return v * (total - u)
    else:
        return v * (u - total)


@triton.jit(do_not_specialize=["rows", "groups", "sizes"])
def softmax_backward_kernel(
    out, g, y, length, rows, groups, sizes, so, sg, sy, out_k, g_k, y_k, out_r, g_r, y_r,
    KIND: tl.constexpr, ONCE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = y (g - sum(g y)), for log-softmax g - e^y sum(g), for softmin the negative of the first."""
    outer, r = _tile(rows, groups, ROWS)
    live = (r < rows)[:, None]
    g += row_offset(outer, sizes, sg)
    y += row_offset(outer, sizes, sy)
    out += row_offset(outer, sizes, so)
    k = tl.arange(0, BLOCK).to(tl.int64)[None, :]
    at_g = (r * g_r)[:, None]
    at_y = (r * y_r)[:, None]
    at_out = (r * out_r)[:, None]
    if ONCE:
        mask = live & (k < length)
        u = load(g, at_g + k * g_k, mask)
        v = load(y, at_y + k * y_k, mask)
        total = tl.sum(tl.where(mask, _terms(u, v, KIND), 0.0), axis=1)[:, None]
        store(out, at_out + k * out_k, _gradient(u, v, total, KIND), mask)
    else:
        acc = _terms(load(g, at_g + k * g_k, live), load(y, at_y + k * y_k, live), KIND)
        for start in range(BLOCK, length, BLOCK):
            mask = live & (start + k < length)
            u = load(g, at_g + (start + k) * g_k, mask)
            acc += _terms(u, load(y, at_y + (start + k) * y_k, mask), KIND)
        total = tl.sum(acc, axis=1)[:, None]
        for start in range(0, length, BLOCK):
            mask = live & (start + k < length)
            u = load(g, at_g + (start + k) * g_k, mask)
            v = load(y, at_y + (start + k) * y_k, mask)
            store(out, at_out + (start + k) * out_k, _gradient(u, v, total, KIND), mask)


@dataclass(frozen=True)
class Plan:
    """ROWS by BLOCK tile; ``once``: the tile holds whole rows."""

    rows: int
    block: int
    once: bool
    warps: int

    def __str__(self) -> str:
        return f"{'registers' if self.once else 'online'} tile={self.rows}x{self.block} warps={self.warps}"


def config(length: int, inner_rows: int, across: bool, device: Device | None = None) -> Plan:
    """Tile for rows of ``length`` elements. ``across``: memory runs along the rows' neighbours, not along the row,
    so that a tile takes at least 32 neighbours (one line of f32) where it can."""
    block = power_of_two(length)
    neighbours = power_of_two(inner_rows)
    if across:
        rows = min(32, neighbours)
        once = block * rows <= LONGEST
        block = block if once else max(64, 4096 // rows)
        rows = rows if not once else min(neighbours, max(rows, min(128, 2048 // block)))
    else:
        once = block <= LONGEST
        block = block if once else 4096
        rows = min(neighbours, max(1, 1024 // block))
    tile = rows * block
    return Plan(rows, block, once, 4 if tile <= 2048 else 8 if tile <= 4096 else 16)


def _run(kernel, tensors, dim: int, kind: int, record: Record | None) -> None:
    """``tensors`` output first; all of one shape."""
    out = tensors[0]
    if out.numel() == 0:
        return
    device = device_of(out)
    if out.dim() == 0:
        tensors = tuple(t.reshape(1) for t in tensors)
    dim %= tensors[0].dim()
    shape = tensors[0].shape
    rest = [d for d in range(len(shape)) if d != dim]
    layout = collapse([shape[d] for d in rest], *([t.stride(d) for d in rest] for t in tensors))
    length = shape[dim]
    along = [t.stride(dim) if length > 1 else 1 for t in tensors]
    inner = layout.sizes[0] if layout.sizes else 1
    next_row = [s[0] if s else 0 for s in layout.strides]
    # The input's memory decides, the last tensor's.
    plan = config(length, inner, bool(layout.sizes) and next_row[-1] < along[-1], device)
    groups = blocks(inner, plan.rows)
    outer = layout.count // inner
    launch(
        kernel,
        groups * outer,
        (
            *tensors, length, inner, groups, layout.sizes[1:],
            *(s[1:] for s in layout.strides), *along, *next_row,
        ),
        {"KIND": kind, "ONCE": plan.once, "ROWS": plan.rows, "BLOCK": plan.block, "num_warps": plan.warps},
        f"{NAMES[kind]} {plan}",
        out,
        record,
    )  # fmt: skip


def softmax(out, x, dim: int, kind: int, *, record: Record | None = None) -> None:
    """out = softmax, log-softmax or softmin (kind 0, 1, 2) of x along ``dim``."""
    _run(softmax_kernel, (out, x), dim, kind, record)


def softmax_backward(gx, g, y, dim: int, kind: int, *, record: Record | None = None) -> None:
    """Gradient of the above from the output ``y``."""
    _run(softmax_backward_kernel, (gx, g, y), dim, kind, record)
