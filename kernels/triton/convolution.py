"""Convolutions as implicit products: forward, data gradient, weight gradient, and what a padded gradient folds into.

All tensors have five dims, [images, channels, depth, height, width]; weights [o, c / groups, depth, height, width].
A product's rows are positions (image, depth, height, width), its columns channels of the result, and k runs over taps
and, inside of a tap, over the channels of what is read. Along an axis, position q and tap j read pixel A q + B + C j:
stride, padding and dilation of a convolution, or one phase of a data gradient, whose positions share their taps.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

import triton
import triton.language as tl

from ._common import (
    INTERPRET,
    Record,
    accumulator,
    blocks,
    device_of,
    fold,
    index,
    launch,
    load,
    power_of_two,
    store,
    widen,
)
from ._functions import ACTIVATIONS

MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}


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
    j2 = j % taps[2]
    j1 = j // taps[2] % taps[1]
    j0 = j // taps[2] // taps[1]
    p0 = pixel_at(d * a[0] + b[0] + c[0] * j0, source[0], MODE)
    p1 = pixel_at(h * a[1] + b[1] + c[1] * j1, source[1], MODE)
    p2 = pixel_at(w * a[2] + b[2] + c[2] * j2, source[2], MODE)
    inside = (p0 >= 0) & (p0 < source[0]) & (p1 >= 0) & (p1 < source[1]) & (p2 >= 0) & (p2 < source[2])
    return n * strides[0] + p0 * strides[2] + p1 * strides[3] + p2 * strides[4], inside


@triton.jit
def tap_offset(j, taps, first, step):
    """Where tap j lies in the weight."""
    j2 = j % taps[2]
    j1 = j // taps[2] % taps[1]
    j0 = j // taps[2] // taps[1]
    return first + j0 * step[0] + j1 * step[1] + j2 * step[2]


@triton.jit
def finish(acc, n, d, h, w, r, live, out, bias, residual, preact, so, sr, sp, bias_step, p0, p1, F: tl.constexpr):
    """preact = acc + bias, out = f(preact) + residual."""
    if bias is not None:
        acc += load(bias, r * bias_step, live)
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
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """R channels of M positions for each group, K channels read at every tap."""
    tiles_n = tl.cdiv(R, BLOCK_N)
    pid = tl.program_id(0)
    group = pid % groups
    m = index(pid // groups // tiles_n, BLOCK_M, WIDE)
    r = pid // groups % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    n, d, h, w = positions(m, sizes)
    k = tl.arange(0, BLOCK_K)
    T: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_M, BLOCK_N), T)
    x += group.to(tl.int64) * K * sx[1]
    weight += group.to(tl.int64) * w_group
    for j in range(taps[0] * taps[1] * taps[2]):
        pixel, inside = source_of(n, d, h, w, j, taps, source, sx, a, b, c, MODE)
        inside = inside & (m < M)
        tap = tap_offset(j, taps, w_first, w_step)
        for start in range(0, K, BLOCK_K):
            i = start + k
            u = tl.load(x + pixel[:, None] + i[None, :] * sx[1], mask=inside[:, None] & (i < K)[None, :], other=0.0)
            v = tl.load(
                weight + tap + i[:, None] * w_channel + r[None, :] * w_row,
                mask=(i < K)[:, None] & (r < R)[None, :],
                other=0.0,
            )
            # The interpreter cannot multiply bf16; its products are exact in f32.
            if INTERPRET:
                u = widen(u)
                v = widen(v)
            acc = tl.dot(u, v, acc, input_precision=PRECISION, out_dtype=T)
    live = (m < M)[:, None] & (r < R)[None, :]
    channel = (group * R + r).to(m.dtype)[None, :]
    finish(
        acc, n[:, None], d[:, None], h[:, None], w[:, None], channel, live, out, bias, residual, preact,
        so, sr, sp, bias_step, p0, p1, F,
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
    r = pid % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    n, d, h, w = positions(m, sizes)
    T: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros((BLOCK_M, BLOCK_N), T)
    group = r // R
    first = (group * K).to(m.dtype)
    own = (group.to(tl.int64) * w_group) + (r % R).to(tl.int64) * w_row
    for j in range(taps[0] * taps[1] * taps[2]):
        pixel, inside = source_of(n, d, h, w, j, taps, source, sx, a, b, c, MODE)
        live = (inside & (m < M))[:, None] & (r < all)[None, :]
        tap = tap_offset(j, taps, w_first, w_step)
        for i in range(K):
            u = load(x, pixel[:, None] + (first + i)[None, :] * sx[1], live)
            v = load(weight, own + tap + i * w_channel, r < all)
            acc += u * v[None, :]
    live = (m < M)[:, None] & (r < all)[None, :]
    finish(
        acc, n[:, None], d[:, None], h[:, None], w[:, None], r.to(m.dtype)[None, :], live, out, bias, residual, preact,
        so, sr, sp, bias_step, p0, p1, F,
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
    o = tile % tiles_o * BLOCK_O + tl.arange(0, BLOCK_O)
    i = tile // tiles_o % tiles_c * BLOCK_C + tl.arange(0, BLOCK_C)
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


@triton.jit
def gather_kernel(out, partial, count, chunks, C, taps, so, BLOCK: tl.constexpr):
    """out[o, c, tap] = the chunks' sums, in order."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), partial.dtype.element_ty)
    for chunk in range(chunks):
        acc += tl.load(partial + chunk * count + e, mask=e < count, other=0.0)
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
    c = tl.program_id(0) % tiles * BLOCK_C + tl.arange(0, BLOCK_C)
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
    live = e < M * C
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


# ---- launches ----


@dataclass(frozen=True)
class Geometry:
    """A convolution of tensors of five dims, as csrc/convolution/problem.h has it."""

    stride: tuple[int, ...]
    before: tuple[int, ...]
    behind: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    mode: str = "zeros"


def _precision(t: Tensor, tf32: bool | None) -> str:
    allowed = torch.backends.cudnn.conv.fp32_precision == "tf32" if tf32 is None else tf32
    return "tf32" if allowed and t.dtype == torch.float32 else "ieee"


def _wide(*tensors: Tensor | None) -> bool:
    reach = [sum((n - 1) * abs(s) for n, s in zip(t.shape, t.stride(), strict=True)) for t in tensors if t is not None]
    return max([*reach, *(t.numel() for t in tensors if t is not None)]) + 4096 >= 2**31


def _strides(t: Tensor | None) -> tuple[int, ...]:
    return (0,) * 5 if t is None else t.stride()


def _run(
    op: tuple[Tensor, Tensor, Tensor], rows: int, channels: int, w_row: int, w_channel: int, w_group: int,
    w_first: int, w_step: tuple[int, ...], taps: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...],
    c: tuple[int, ...], groups: int, mode: str, bias: Tensor | None, residual: Tensor | None, preact: Tensor | None,
    act: int, p0: float, p1: float, tf32: bool | None, record: Record | None,
) -> None:  # fmt: skip
    """One launch: ``rows`` channels of each group of ``out``, from ``channels`` of each group of ``x``."""
    out, x, weight = op
    sizes = out.shape[2:]
    M = out.shape[0] * math.prod(sizes)
    if M == 0 or rows == 0:
        return
    name, f, _, _, _ = ACTIVATIONS[act]
    direct = channels * math.prod(taps) == 0 or channels < 8 or (groups > 1 and rows < 8)
    block_n = max(16, min(64, power_of_two(rows * groups if direct else rows)))
    block_m = max(16, min(1024 // block_n if direct else 64, power_of_two(M)))
    block_k = max(16, min(32, power_of_two(channels)))
    precision = _precision(out, tf32)
    tile = {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": 4}
    if not direct:
        tile |= {"BLOCK_K": block_k, "PRECISION": precision, "num_stages": 3}
    columns = rows * groups if direct else rows
    launch(
        direct_kernel if direct else product_kernel,
        blocks(M, block_m) * blocks(columns, block_n) * (1 if direct else groups),
        (
            out, x, weight, bias, residual, preact, float(p0), float(p1), M, rows, channels, groups,
            tuple(sizes), taps, tuple(x.shape[2:]), a, b, c, x.stride(), out.stride(), _strides(residual),
            _strides(preact), w_row, w_channel, w_group, w_first, w_step, 0 if bias is None else bias.stride(0),
        ),
        {**tile, "F": f, "MODE": MODES[mode], "WIDE": _wide(out, x, residual, preact)},
        f"{name} M={M} N={columns} K={channels}x{math.prod(taps)} tile={block_m}x{block_n}"
        + ("" if direct else f"x{block_k} {precision}"),
        out,
        record,
    )  # fmt: skip


def forward(
    out: Tensor, x: Tensor, weight: Tensor, g: Geometry, bias: Tensor | None = None, residual: Tensor | None = None,
    preact: Tensor | None = None, act: int = 0, p0: float = 0.0, p1: float = 0.0,
    *, tf32: bool | None = None, record: Record | None = None,
) -> None:  # fmt: skip
    """out = f(x * weight + bias) + residual; preact receives what f is of."""
    rows, channels = weight.shape[0] // g.groups, weight.shape[1]
    w = weight.stride()
    _run(
        (out, x, weight), rows, channels, w[0], w[1], rows * w[0], 0, w[2:], tuple(weight.shape[2:]), g.stride,
        tuple(-p for p in g.before), g.dilation, g.groups, g.mode, bias, residual, preact, act, p0, p1, tf32, record,
    )  # fmt: skip


def _phase(g: Geometry, k: int, taps: int, first: int) -> tuple[int, int, int, int, int]:
    """(taps, first tap, step of taps, B, C) of the positions first, first + stride, ... of an image."""
    s, d = g.stride[k], g.dilation[k]
    mine = [t for t in range(taps) if (first + g.before[k] - t * d) % s == 0]
    if not mine:
        return 0, 0, 0, 0, 0
    step = mine[1] - mine[0] if len(mine) > 1 else 1
    return len(mine), mine[0], step, (first + g.before[k] - mine[0] * d) // s, -(step * d // s)


def data_gradient(
    image: Tensor, result: Tensor, weight: Tensor, g: Geometry, bias: Tensor | None = None,
    *, tf32: bool | None = None, record: Record | None = None,
) -> None:  # fmt: skip
    """image = result * weight, the transpose of the convolution, + bias: a launch for each phase of the strides."""
    if g.mode != "zeros" and any(g.before + g.behind):
        return _folded(image, result, weight, g, tf32, record)
    channels, rows = weight.shape[0] // g.groups, weight.shape[1]
    w = weight.stride()
    for first in itertools.product(*(range(min(s, n)) for s, n in zip(g.stride, image.shape[2:], strict=True))):
        phases = [_phase(g, k, weight.shape[2 + k], first[k]) for k in range(3)]
        count, tap, step, b, c = (tuple(p[i] for p in phases) for i in range(5))
        out = image[(slice(None), slice(None), *(slice(f, None, s) for f, s in zip(first, g.stride, strict=True)))]
        _run(
            (out, result, weight), rows, channels, w[1], w[0], channels * w[0],
            sum(t * s for t, s in zip(tap, w[2:], strict=True)),
            tuple(s * t for s, t in zip(step, w[2:], strict=True)), count, (1, 1, 1), b, c, g.groups, "zeros", bias,
            None, None, 0, 0.0, 0.0, tf32, record,
        )  # fmt: skip


def _folded(
    image: Tensor, result: Tensor, weight: Tensor, g: Geometry, tf32: bool | None, record: Record | None
) -> None:
    """The gradient of one padded image after the other, and of each the sums of what reads the same pixel."""
    sizes = image.shape[2:]
    shape = [n + a + b for n, a, b in zip(sizes, g.before, g.behind, strict=True)]
    padded = torch.empty((1, image.shape[1], *shape), dtype=image.dtype, device=image.device)
    plain = Geometry(g.stride, (0, 0, 0), (0, 0, 0), g.dilation, g.groups)
    many = tuple(
        (1 + a + b if g.mode == "replicate" else 3) if a + b else 1 for a, b in zip(g.before, g.behind, strict=True)
    )
    for n in range(image.shape[0]):
        data_gradient(padded, result[n : n + 1], weight, plain, tf32=tf32, record=record)
        out = image[n : n + 1]
        M, C = math.prod(sizes), image.shape[1]
        launch(
            fold_padding_kernel,
            blocks(M * C, 256),
            (out, padded, M, C, tuple(sizes), g.before, g.behind, many, out.stride(), padded.stride()),
            {"MODE": MODES[g.mode], "BLOCK": 256, "num_warps": 4},
            f"{g.mode} {M}x{C}",
            out,
            record,
        )


def weight_gradient(
    gw: Tensor, x: Tensor, result: Tensor, g: Geometry, *, tf32: bool | None = None, record: Record | None = None
) -> None:
    """gw = the sums over positions of result times image; chunks of positions are added in order."""
    sizes, taps = tuple(result.shape[2:]), tuple(gw.shape[2:])
    M = result.shape[0] * math.prod(sizes)
    rows, C = gw.shape[0] // g.groups, gw.shape[1]
    if gw.numel() == 0:
        return
    if M == 0:
        gw.zero_()
        return
    block_o, block_c = (max(16, min(64, power_of_two(n))) for n in (rows, C))
    block_m = 32
    tiles = blocks(rows, block_o) * blocks(C, block_c) * g.groups * math.prod(taps)
    steps = blocks(M, block_m)
    wanted = max(1, min(steps, blocks(2 * device_of(gw).multiprocessors, tiles)))
    per = blocks(steps, wanted)
    chunks = blocks(steps, per)
    partial = torch.empty((chunks, gw.numel()), dtype=accumulator(gw), device=gw.device)
    precision = _precision(gw, tf32)
    launch(
        weight_kernel,
        tiles * chunks,
        (
            partial, x, result, M, per * block_m, rows, C, g.groups, sizes, taps, tuple(x.shape[2:]), g.stride,
            tuple(-p for p in g.before), g.dilation, x.stride(), result.stride(),
        ),
        {
            "MODE": MODES[g.mode], "PRECISION": precision, "WIDE": _wide(x, result), "BLOCK_O": block_o,
            "BLOCK_C": block_c, "BLOCK_M": block_m, "num_warps": 4, "num_stages": 3,
        },
        f"O={rows} C={C} taps={math.prod(taps)} M={M} chunks={chunks} tile={block_o}x{block_c}x{block_m} {precision}",
        gw,
        record,
    )  # fmt: skip
    launch(
        gather_kernel,
        blocks(gw.numel(), 256),
        (gw, partial, gw.numel(), chunks, C, taps, gw.stride()),
        {"BLOCK": 256, "num_warps": 4},
        f"chunks={chunks}",
        gw,
        record,
    )


def channel_sums(sums: Tensor, g: Tensor, *, record: Record | None = None) -> None:
    """sums[c] = the sum of all positions of g's channel c."""
    sizes, C = tuple(g.shape[2:]), g.shape[1]
    M = g.shape[0] * math.prod(sizes)
    if M == 0:
        sums.zero_()
        return
    block_c = max(1, min(32, power_of_two(C)))
    block_m = 1024 // block_c
    steps = blocks(M, block_m)
    per = blocks(steps, max(1, min(steps, blocks(2 * device_of(g).multiprocessors, blocks(C, block_c)))))
    chunks = blocks(steps, per)
    partial = torch.empty((chunks, C), dtype=accumulator(g), device=g.device)
    launch(
        sums_kernel,
        chunks * blocks(C, block_c),
        (partial, g, M, per * block_m, C, sizes, g.stride()),
        {"WIDE": _wide(g), "BLOCK_M": block_m, "BLOCK_C": block_c, "num_warps": 4},
        f"M={M} C={C} chunks={chunks}",
        g,
        record,
    )
    fold(sums, partial, record)
