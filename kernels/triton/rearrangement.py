"""Padding and sliding windows, forward and backward; shuffles are the copy of one view to another.

A program writes BLOCK neighbouring elements. Gradients are gathers: each element adds up the places that it went to, in
a fixed order. Where a padded element comes from: ``kernels/rearrangement.h``.
"""

from __future__ import annotations

import torch

import triton
import triton.language as tl

from ._common import Record, blocks, constant, index, launch, narrow, power_of_two, widen
from ._common import _interpret as interpret

CONSTANT = constant(0)
REFLECT = constant(1)
REPLICATE = constant(2)
CIRCULAR = constant(3)
MODES = ("constant", "reflect", "replicate", "circular")
LARGEST = 2**31


def _block(count: int, reach: int) -> tuple[int, bool]:
    """Elements of a program, more where the interpreter pays by the program, and whether offsets take 64 bits."""
    block = min(16384, max(256, power_of_two(count))) if interpret else 256
    return block, max(reach, count + block) >= LARGEST


def _reach(t: torch.Tensor) -> int:
    return sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))


def _dims(to: torch.Tensor, source: torch.Tensor, lo: list[int]) -> list[tuple[int, int, int, int, int]]:
    """(size of to, of source, lo, strides of both) of the dims, the innermost of to first; neighbours are joined."""
    dims = []
    every = zip(to.shape, source.shape, lo, to.stride(), source.stride(), strict=True)
    for dim in sorted((d for d in every if d[:3] != (1, 1, 0)), key=lambda d: (d[0] == 1, d[3])):
        a, b, at, s, t = dim
        if dims and a == b and at == 0:
            last = dims[-1]
            if last[0] == last[1] and last[2] == 0 and (s, t) == (last[3] * last[0], last[4] * last[0]):
                dims[-1] = (last[0] * a, last[1] * a, 0, *last[3:])
                continue
        dims.append(dim)
    return dims or [(1, 1, 0, 0, 0)]


@triton.jit
def _period(n, lo, size):
    """What a circular dim repeats: the elements that are not cut off."""
    return n + tl.minimum(lo, 0) + tl.minimum(size - n - lo, 0)


@triton.jit
def _source(o, n, lo, size, MODE: tl.constexpr):
    """The input's element that is in place o; outside of 0 .. n - 1 for the filler."""
    i = o - lo
    if MODE == REFLECT:
        return tl.where(i < 0, -i, tl.where(i >= n, 2 * (n - 1) - i, i))
    elif MODE == REPLICATE:
        return tl.minimum(tl.maximum(i, 0), n - 1)
    elif MODE == CIRCULAR:
        period = _period(n, lo, size)
        return tl.where(i < 0, i + period, tl.where(i >= n, i - period, i))
    else:
        return i


@triton.jit(do_not_specialize=["count", "value", "sizes", "ns", "los", "so", "sx"])
def pad_kernel(
    out, x, count, value, sizes, ns, los, so, sx, MODE: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr
):
    """out = x padded; dims innermost first."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < count
    rest, to, at = i, i - i, i - i
    there = live
    for d in tl.static_range(len(sizes)):
        s = _source(rest % sizes[d], ns[d], los[d], sizes[d], MODE)
        there = there & (s >= 0) & (s < ns[d])
        to += rest % sizes[d] * so[d]
        at += s * sx[d]
        rest = rest // sizes[d]
    v = widen(tl.load(x + at, mask=there, other=0.0))
    v = tl.where(there, v, tl.full((), 0, v.dtype) + value)
    tl.store(out + to, narrow(v, out.dtype.element_ty), mask=live)


def pad(out, x, mode: str, lo: list[int], value: float, *, record: Record | None = None) -> None:
    """out = x with lo[d] elements in front of dim d, filled as mode says."""
    if out.numel() == 0:
        return
    if x.numel() == 0:  # of filler alone: nothing is read
        x, lo = out, list(out.shape)
    sizes, ns, los, so, sx = zip(*_dims(out, x, lo), strict=True)
    block, wide = _block(out.numel(), max(_reach(out), _reach(x)))
    meta = {"MODE": MODES.index(mode), "WIDE": wide, "BLOCK": block, "num_warps": 4}
    args = (out, x, out.numel(), float(value), sizes, ns, los, so, sx)
    launch(pad_kernel, blocks(out.numel(), block), args, meta, f"rank={len(sizes)} block={block}", out, record)


@triton.jit
def _place(a, i, n, lo, size, MODE: tl.constexpr):
    """Place number a that element i went to, and whether there is such a one: itself, in front, behind."""
    k = i - i + a
    if MODE == REPLICATE:
        front = tl.maximum(lo, 0)
        padded = tl.where(k <= front, k - 1, lo + n + k - 1 - front)
        there = tl.where(k <= front, i == 0, i == n - 1)
    elif MODE == REFLECT:
        padded = tl.where(k == 1, lo - i, lo + 2 * (n - 1) - i)
        there = tl.where(k == 1, (i > 0) & (i <= lo), i < n - 1)
    else:
        period = _period(n, lo, size)
        padded = tl.where(k == 1, i + lo - period, i + lo + period)
        there = (i >= -lo) & (i < period + tl.maximum(-lo, 0))
    o = tl.where(k == 0, i + lo, padded)
    return o, (there | (k == 0)) & (o >= 0) & (o < size)


@triton.jit(
    do_not_specialize=["count", "sizes", "so", "sg", "before", "n", "lo", "size", "step", "most"],
)
def pad_sums_kernel(
    out, g, count, sizes, so, sg, before, n, lo, size, step, most,
    MODE: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = the sum of g over the places of each element; three padded dims stand apart, others are walked through."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    live = i < count
    rest, to, at = i, i - i, i - i
    for d in tl.static_range(len(sizes)):
        to += rest % sizes[d] * so[d]
        at += rest % sizes[d] * sg[d]
        rest = rest // sizes[d]
    i0, i1, i2 = i // before[0] % n[0], i // before[1] % n[1], i // before[2] % n[2]
    total = widen(tl.load(g + at, mask=i < 0, other=0.0))
    for a2 in range(most[2]):
        o2, there2 = _place(a2, i2, n[2], lo[2], size[2], MODE)
        for a1 in range(most[1]):
            o1, there1 = _place(a1, i1, n[1], lo[1], size[1], MODE)
            for a0 in range(most[0]):
                o0, there0 = _place(a0, i0, n[0], lo[0], size[0], MODE)
                there = live & there0 & there1 & there2
                total += widen(tl.load(g + (at + o0 * step[0] + o1 * step[1] + o2 * step[2]), mask=there, other=0.0))
    tl.store(out + to, narrow(total, out.dtype.element_ty), mask=live)


def pad_sums(out, g, mode: str, lo: list[int], *, record: Record | None = None) -> None:
    """out = the gradient of pad in a mode that brings elements together."""
    if out.numel() == 0:
        return
    if g.numel() == 0:
        g, lo, mode = out, list(out.shape), "constant"
        return pad(out, g, mode, [2 * n for n in lo], 0.0, record=record)
    dims = _dims(out, g, lo)
    padded = []
    before = 1
    for d, (n, size, at, _, step) in enumerate(dims):
        if n != size or at != 0:
            most = 1 + max(at, 0) + max(size - n - at, 0) if mode == "replicate" else 3
            padded.append((before, n, at, size, step, most))
            dims[d] = (*dims[d][:4], 0)
        before *= n
    padded += [(1, 1, 0, 1, 0, 1)] * (3 - len(padded))
    ns, _, _, so, sg = zip(*dims, strict=True)
    block, wide = _block(out.numel(), max(_reach(out), _reach(g)))
    meta = {"MODE": MODES.index(mode), "WIDE": wide, "BLOCK": block, "num_warps": 4}
    args = (out, g, out.numel(), ns, so, sg, *zip(*padded, strict=True))
    launch(pad_sums_kernel, blocks(out.numel(), block), args, meta, f"rank={len(ns)} block={block}", out, record)


@triton.jit(do_not_specialize=["count", "channels", "kernel", "dilation", "padding", "stride", "image", "places", "sx"])
def unfold_kernel(
    out, x, count, channels, kernel, dilation, padding, stride, image, places, sx,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Columns [N, C, kernel, places], contiguous, of images [N, C, H, W]."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    ow, rest = i % places[1], i // places[1]
    oh, rest = rest % places[0], rest // places[0]
    kw, rest = rest % kernel[1], rest // kernel[1]
    kh, rest = rest % kernel[0], rest // kernel[0]
    h = oh * stride[0] + kh * dilation[0] - padding[0]
    w = ow * stride[1] + kw * dilation[1] - padding[1]
    there = (i < count) & (h >= 0) & (h < image[0]) & (w >= 0) & (w < image[1])
    at = rest // channels * sx[0] + rest % channels * sx[1] + h * sx[2] + w * sx[3]
    v = widen(tl.load(x + at, mask=there, other=0.0))
    tl.store(out + i, narrow(v, out.dtype.element_ty), mask=i < count)


@triton.jit(do_not_specialize=["count", "channels", "kernel", "dilation", "padding", "stride", "image", "places", "sx"])
def fold_windows_kernel(
    out, x, count, channels, kernel, dilation, padding, stride, image, places, sx,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Images [N, C, H, W], contiguous, as sums of columns [N, C * kernel, places]."""
    i = index(tl.program_id(0), BLOCK, WIDE)
    w, rest = i % image[1], i // image[1]
    h, rest = rest % image[0], rest // image[0]
    first = rest // channels * sx[0] + rest % channels * kernel[0] * kernel[1] * sx[1]
    total = widen(tl.load(x + first, mask=i < 0, other=0.0))
    for kh in range(kernel[0]):
        down = h + padding[0] - kh * dilation[0]
        row = (i < count) & (down >= 0) & (down % stride[0] == 0) & (down // stride[0] < places[0])
        for kw in range(kernel[1]):
            along = w + padding[1] - kw * dilation[1]
            there = row & (along >= 0) & (along % stride[1] == 0) & (along // stride[1] < places[1])
            place = down // stride[0] * places[1] + along // stride[1]
            at = first + (kh * kernel[1] + kw) * sx[1] + place * sx[2]
            total += widen(tl.load(x + at, mask=there, other=0.0))
    tl.store(out + i, narrow(total, out.dtype.element_ty), mask=i < count)


def _window(jitted, out, x, channels: int, parameters: tuple, record: Record | None) -> None:
    if out.numel() == 0:
        return
    _, _, padding, *_ = parameters
    block, wide = _block(out.numel(), max(_reach(x), 2 * max(padding), *(a * b for a, b in parameters[:2])))
    args = (out, x, out.numel(), channels, *parameters, x.stride())
    meta = {"WIDE": wide, "BLOCK": block, "num_warps": 4}
    launch(jitted, blocks(out.numel(), block), args, meta, f"block={block}", out, record)


def unfold(out, x, kernel, dilation, padding, stride, *, record: Record | None = None) -> None:
    """Columns of a batch of images [N, C, H, W]."""
    image = tuple(x.shape[2:])
    parameters = (*map(tuple, (kernel, dilation, padding, stride)), image)
    _window(unfold_kernel, out, x, x.shape[1], (*parameters, places(*parameters)), record)


def fold(out, x, kernel, dilation, padding, stride, *, record: Record | None = None) -> None:
    """A batch of images [N, C, H, W] of columns."""
    image = tuple(out.shape[2:])
    parameters = (*map(tuple, (kernel, dilation, padding, stride)), image)
    _window(fold_windows_kernel, out, x, out.shape[1], (*parameters, places(*parameters)), record)


def places(kernel, dilation, padding, stride, image) -> tuple[int, ...]:
    """How many places the window has along each dim."""
    walk = zip(kernel, dilation, padding, stride, image, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for k, d, p, s, n in walk)
