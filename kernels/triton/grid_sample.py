"""Samples of an image at the points of a grid, and their gradients, by the rules of kernels/grid_sample.h.

Images are [N, C, D, H, W] and grids [N, D, H, W, coordinate] with any strides. A program has BLOCK samples, or points
of the grid; of the gradient of the image it has BLOCK pixels and looks at all points in their order, so that nothing is
added by two programs.
"""

from __future__ import annotations

from torch import Tensor

import triton
import triton.language as tl

from . import _math as m
from ._common import Record, blocks, constant, device_of, launch, load, power_of_two, store
from .pooling import _at, _image, _points

BILINEAR, NEAREST, BICUBIC = constant(0), constant(1), constant(2)
ZEROS, BORDER, REFLECTION = constant(0), constant(1), constant(2)
A = constant(-0.75)

_MODES = {"bilinear": (0, 2), "nearest": (1, 1), "bicubic": (2, 4)}
_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}
_UNSPECIALISED = ["count", "channels", "size", "points"]


@triton.jit
def _truncated(x):
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def _rounded(x):
    """To nearest, of two the even one."""
    low = tl.floor(x)
    rest = x - low
    odd = tl.floor(low * 0.5) * 2 != low
    return tl.where((rest > 0.5) | ((rest == 0.5) & odd), low + 1, low)


@triton.jit
def _position(x, n, ALIGN: tl.constexpr, DIMS: tl.constexpr):
    """n: elements, or with ALIGN one less, as a number."""
    if DIMS == 2:
        return (x + 1) * (n * 0.5) if ALIGN else tl.fma(x + 1, n * 0.5, -0.5)
    else:
        return (x + 1) * 0.5 * n if ALIGN else ((x + 1) * n - 1) * 0.5


@triton.jit
def _reflected(x, n, slope, ALIGN: tl.constexpr, DIMS: tl.constexpr):
    low = 0.0 if ALIGN else -0.5
    away = tl.abs(x - low)
    negative = x - low < 0
    span = tl.where(n > 0, n, 1.0)
    if DIMS == 2:
        extra = tl.fma(-_truncated(m.divide(away, 2 * span)), 2 * span, away)
        other = 2 * span - extra
        back = extra > other
    else:
        extra = away % span
        other = span - extra
        flips = tl.floor(m.divide(away, span))
        back = (flips < 2147483648.0) & (tl.floor(flips * 0.5) * 2 != flips)
    slope = tl.where(back != negative, -slope, slope)
    return tl.where(n > 0, tl.where(back, other, extra) + low, 0.0), tl.where(n > 0, slope, 0.0)


@triton.jit
def _padded(x, size, n, slope, PADDING: tl.constexpr, ALIGN: tl.constexpr, DIMS: tl.constexpr, GRADIENT: tl.constexpr):
    if PADDING == ZEROS:
        return x, slope
    else:
        if PADDING == REFLECTION:
            x, slope = _reflected(x, n, slope, ALIGN, DIMS)
        most = x - x + size - 1
        most = tl.where(x == x, most, size - 1)
        slope = tl.where((x > 0) & (x < most), slope, 0.0)
        inside = tl.where(x > 0, tl.where(x < most, x, most), 0.0)
        if DIMS == 3:  # torch's gradients leave out what its forward clamps
            inside = tl.where(x == x, inside, x if GRADIENT else most)
        return inside, slope


@triton.jit
def _inside(x, size):
    """Element number x, or -1 where there is none."""
    there = (x >= 0) & (x < size)
    return tl.where(there, tl.where(there, x, 0.0).to(tl.int64), -1)


@triton.jit
def _near(x):
    return tl.fma(tl.fma(x, A + 2, -(A + 3)) * x, x, 1.0), (3 * (A + 2) * x - 2 * (A + 3)) * x


@triton.jit
def _far(x):
    return tl.fma(tl.fma(tl.fma(x, A, -5 * A), x, 8 * A), x, -4 * A), (3 * A * x - 10 * A) * x + 8 * A


@triton.jit
def _element(first, k, size, n, PADDING: tl.constexpr, ALIGN: tl.constexpr, DIMS: tl.constexpr):
    at, _ = _padded(first + k, size, n, first, PADDING, ALIGN, DIMS, False)
    return _inside(_truncated(at), size)


@triton.jit
def _taps(
    x, elements, MODE: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr, DIMS: tl.constexpr,
    GRADIENT: tl.constexpr,
):  # fmt: skip
    """What points at x are made of in one dim: elements, weights, how these bend; how the position follows x."""
    size = (elements + tl.zeros_like(x).to(tl.int64)).to(x.dtype)
    n = size - 1 if ALIGN else size
    scale = n * 0.5
    at = _position(x, n, ALIGN, DIMS)
    if MODE == NEAREST:
        at, scale = _padded(at, size, n, scale, PADDING, ALIGN, DIMS, GRADIENT)
        one = tl.zeros_like(x) + 1
        return (_inside(_rounded(at), size),), (one,), (one,), scale
    elif MODE == BILINEAR:
        at, scale = _padded(at, size, n, scale, PADDING, ALIGN, DIMS, GRADIENT)
        first = tl.floor(at)
        t = at - first
        one = tl.zeros_like(x) + 1
        low = 1 - t
        if DIMS == 3:  # nothing at NaN, and in two dims NaN
            low, t = tl.where(t == t, low, 0.0), tl.where(t == t, t, 0.0)
        return (_inside(first, size), _inside(first + 1, size)), (low, t), (-one, one), scale
    else:
        first = tl.floor(at)
        t = at - first
        w0, b0 = _far(t + 1)
        w1, b1 = _near(t)
        w2, b2 = _near(1 - t)
        w3, b3 = _far(2 - t)
        i0 = _element(first, -1, size, n, PADDING, ALIGN, DIMS)
        i1 = _element(first, 0, size, n, PADDING, ALIGN, DIMS)
        i2 = _element(first, 1, size, n, PADDING, ALIGN, DIMS)
        i3 = _element(first, 2, size, n, PADDING, ALIGN, DIMS)
        return (i0, i1, i2, i3), (w0, w1, w2, w3), (b0, b1, -b2, -b3), scale


@triton.jit
def _coordinates(grid, at, step, live, DIMS: tl.constexpr):
    """Along D, H, W; of images there is no D."""
    x = load(grid, at, live)
    y = load(grid, at + step, live)
    if DIMS == 3:
        return load(grid, at + 2 * step, live), y, x
    else:
        return x, y, x


@triton.jit(do_not_specialize=_UNSPECIALISED)
def sample_kernel(
    y, x, grid, count, size, points, sy, sx, sg, K: tl.constexpr, MODE: tl.constexpr, PADDING: tl.constexpr,
    ALIGN: tl.constexpr, DIMS: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = x at the points."""
    n, c, od, oh, ow, live = _points(count, points, BLOCK)
    where = n * sg[0] + od * sg[1] + oh * sg[2] + ow * sg[3]
    cd, ch, cw = _coordinates(grid, where, sg[4], live, DIMS)
    iw, ww, _, _ = _taps(cw, size[2], MODE, PADDING, ALIGN, DIMS, GRADIENT)
    ih, wh, _, _ = _taps(ch, size[1], MODE, PADDING, ALIGN, DIMS, GRADIENT)
    plane = n * sx[0] + c * sx[1]
    total = tl.zeros_like(cw)
    if DIMS == 3:
        id_, wd, _, _ = _taps(cd, size[0], MODE, PADDING, ALIGN, DIMS, GRADIENT)
        for a in tl.static_range(K):
            for b in tl.static_range(K):
                for e in tl.static_range(K):
                    there = live & (id_[a] >= 0) & (ih[b] >= 0) & (iw[e] >= 0)
                    value = load(x, plane + id_[a] * sx[2] + ih[b] * sx[3] + iw[e] * sx[4], there)
                    total += value * (wh[b] * ww[e] * wd[a])
    else:
        for b in tl.static_range(K):
            for e in tl.static_range(K):
                there = live & (ih[b] >= 0) & (iw[e] >= 0)
                total += load(x, plane + ih[b] * sx[3] + iw[e] * sx[4], there) * (wh[b] * ww[e])
    store(y, _at(sy, n, c, od, oh, ow), total, live)


@triton.jit(do_not_specialize=_UNSPECIALISED)
def grid_gradient_kernel(
    gg, g, x, grid, count, channels, size, points, sgg, sy, sx, sg, K: tl.constexpr, MODE: tl.constexpr,
    PADDING: tl.constexpr, ALIGN: tl.constexpr, DIMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gg = sums over channels of g and of how fast x changes along each dim."""
    n, _alone, od, oh, ow, live = _points(count, points, BLOCK)
    where = n * sg[0] + od * sg[1] + oh * sg[2] + ow * sg[3]
    to = n * sgg[0] + od * sgg[1] + oh * sgg[2] + ow * sgg[3]
    cd, ch, cw = _coordinates(grid, where, sg[4], live, DIMS)
    sum_w, sum_h, sum_d = tl.zeros_like(cw), tl.zeros_like(cw), tl.zeros_like(cw)
    iw, ww, bw, scale_w = _taps(cw, size[2], MODE, PADDING, ALIGN, DIMS, True)
    ih, wh, bh, scale_h = _taps(ch, size[1], MODE, PADDING, ALIGN, DIMS, True)
    if DIMS == 3:
        id_, wd, bd, scale_d = _taps(cd, size[0], MODE, PADDING, ALIGN, DIMS, True)
    if MODE != NEAREST:
        for c in range(channels):
            along = load(g, n * sy[0] + c * sy[1] + od * sy[2] + oh * sy[3] + ow * sy[4], live)
            plane = n * sx[0] + c * sx[1]
            if DIMS == 3:
                for a in tl.static_range(K):
                    for b in tl.static_range(K):
                        for e in tl.static_range(K):
                            there = live & (id_[a] >= 0) & (ih[b] >= 0) & (iw[e] >= 0)
                            value = load(x, plane + id_[a] * sx[2] + ih[b] * sx[3] + iw[e] * sx[4], there) * along
                            sum_w += value * (bw[e] * wh[b] * wd[a])
                            sum_h += value * (ww[e] * bh[b] * wd[a])
                            sum_d += value * (ww[e] * wh[b] * bd[a])
            elif MODE == BILINEAR:
                at_n, at_s = plane + ih[0] * sx[3], plane + ih[1] * sx[3]
                in_n, in_s = live & (ih[0] >= 0), live & (ih[1] >= 0)
                nw = load(x, at_n + iw[0] * sx[4], in_n & (iw[0] >= 0))
                ne = load(x, at_n + iw[1] * sx[4], in_n & (iw[1] >= 0))
                sw = load(x, at_s + iw[0] * sx[4], in_s & (iw[0] >= 0))
                se = load(x, at_s + iw[1] * sx[4], in_s & (iw[1] >= 0))
                sum_w += ((ne - nw) * wh[0] + (se - sw) * wh[1]) * along
                sum_h += ((sw - nw) * ww[0] + (se - ne) * ww[1]) * along
            else:
                for b in tl.static_range(K):
                    for e in tl.static_range(K):
                        there = live & (ih[b] >= 0) & (iw[e] >= 0)
                        value = load(x, plane + ih[b] * sx[3] + iw[e] * sx[4], there) * along
                        sum_w += value * (bw[e] * wh[b])
                        sum_h += value * (ww[e] * bh[b])
        sum_w *= scale_w
        sum_h *= scale_h
    store(gg, to, sum_w, live)
    store(gg, to + sgg[4], sum_h, live)
    if DIMS == 3:
        if MODE != NEAREST:
            sum_d *= scale_d
        store(gg, to + 2 * sgg[4], sum_d, live)


@triton.jit
def _matched(index, weight, element, K: tl.constexpr):
    """[pixels, points]: whether a pixel is among what a point is made of, and its weight there."""
    among = index[0][None, :] == element[:, None]
    total = tl.where(among, weight[0][None, :], 0.0)
    for k in tl.static_range(1, K):
        here = index[k][None, :] == element[:, None]
        among = among | here
        total += tl.where(here, weight[k][None, :], 0.0)
    return among, total


@triton.jit(do_not_specialize=[*_UNSPECIALISED, "tiles", "slices"])
def image_gradient_kernel(
    gx, g, grid, count, channels, size, points, tiles, slices, sgx, sy, sg, K: tl.constexpr, MODE: tl.constexpr,
    PADDING: tl.constexpr, ALIGN: tl.constexpr, DIMS: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    SLICE: tl.constexpr,
):  # fmt: skip
    """gx = for each pixel and some channels the sum of g over the points that it is in. count: points of an image."""
    item = tl.program_id(0).to(tl.int64)
    pixel = item % tiles * BLOCK + tl.arange(0, BLOCK)
    c = item // tiles % slices * SLICE + tl.arange(0, SLICE)
    n = item // tiles // slices
    pd, ph, pw = pixel // size[2] // size[1], pixel // size[2] % size[1], pixel % size[2]
    there = c < channels
    total = load(g, pixel[:, None] + c[None, :], (pixel < 0)[:, None] & there[None, :])
    for start in range(0, count, CHUNK):
        i = start + tl.arange(0, CHUNK).to(tl.int64)
        live = i < count
        od, oh, ow = i // points[4] // points[3], i // points[4] % points[3], i % points[4]
        cd, ch, cw = _coordinates(grid, n * sg[0] + od * sg[1] + oh * sg[2] + ow * sg[3], sg[4], live, DIMS)
        iw, ww, _, _ = _taps(cw, size[2], MODE, PADDING, ALIGN, DIMS, True)
        ih, wh, _, _ = _taps(ch, size[1], MODE, PADDING, ALIGN, DIMS, True)
        among, weight = _matched(iw, ww, pw, K)
        among_h, weight_h = _matched(ih, wh, ph, K)
        among = among & among_h & live[None, :]
        weight *= weight_h
        if DIMS == 3:
            id_, wd, _, _ = _taps(cd, size[0], MODE, PADDING, ALIGN, DIMS, True)
            among_d, weight_d = _matched(id_, wd, pd, K)
            among = among & among_d
            weight *= weight_d
        if tl.max(tl.max(among.to(tl.int32), 1), 0) > 0:
            at = n * sy[0] + od * sy[2] + oh * sy[3] + ow * sy[4]
            here = load(g, c[:, None] * sy[1] + at[None, :], there[:, None] & live[None, :])
            # what is 0 times infinity elsewhere is no part of the sum
            each = tl.where(among[:, None, :], weight[:, None, :] * here[None, :, :], 0.0)
            total += tl.sum(each, 2)
    at = n * sgx[0] + pd * sgx[2] + ph * sgx[3] + pw * sgx[4]
    inside = (pixel < size[0] * size[1] * size[2])[:, None] & there[None, :]
    store(gx, at[:, None] + c[None, :] * sgx[1], total, inside)


# ---- host ----


def _rule(mode: str, padding: str, align: bool, dims: int) -> dict[str, object]:
    number, taps = _MODES[mode]
    return {"K": taps, "MODE": number, "PADDING": _PADDINGS[padding], "ALIGN": align, "DIMS": dims}


def _grid(grid: Tensor) -> Tensor:
    """[N, D, H, W, coordinate]"""
    return grid.unsqueeze(1) if grid.dim() == 4 else grid


def _block(t: Tensor, count: int) -> int:
    return min(4096, power_of_two(count)) if device_of(t).multiprocessors == 8 else 256


def sample(
    y: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align: bool, gradient: bool,
    record: Record | None = None,
) -> None:  # fmt: skip
    """y = x at the points of the grid."""
    count = y.numel()
    if count == 0:
        return
    dims = x.dim() - 2
    to, of, points = _image(y, dims), _image(x, dims), _grid(grid)
    block = _block(y, count)
    meta = {**_rule(mode, padding, align, dims), "GRADIENT": gradient, "BLOCK": block, "num_warps": 4}
    args = (to, of, points, count, tuple(of.shape[2:]), tuple(to.shape), to.stride(), of.stride(), points.stride())
    launch(sample_kernel, blocks(count, block), args, meta, f"block={block}", y, record)


def grid_gradient(
    gg: Tensor, g: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align: bool, record: Record | None = None
) -> None:
    """gg = the gradient of the samples to the grid."""
    if gg.numel() == 0:
        return
    dims = x.dim() - 2
    to, along, of, points = _grid(gg), _image(g, dims), _image(x, dims), _grid(grid)
    count = to.numel() // dims
    block = _block(gg, count)
    sizes = (along.shape[0], 1, *along.shape[2:])
    args = (
        to, along, of, points, count, of.shape[1], tuple(of.shape[2:]), sizes, to.stride(), along.stride(), of.stride(),
        points.stride(),
    )  # fmt: skip
    meta = {**_rule(mode, padding, align, dims), "BLOCK": block, "num_warps": 4}
    launch(grid_gradient_kernel, blocks(count, block), args, meta, f"block={block}", gg, record)


def image_gradient(
    gx: Tensor, g: Tensor, grid: Tensor, mode: str, padding: str, align: bool, record: Record | None = None
) -> None:
    """gx = the gradient of the samples to the image."""
    if gx.numel() == 0:
        return
    dims = gx.dim() - 2
    to, along, points = _image(gx, dims), _image(g, dims), _grid(grid)
    interpreted = device_of(gx).multiprocessors == 8
    pixels, count = to[0, 0].numel(), along[0, 0].numel()
    block = min(512 if interpreted else 64, power_of_two(pixels))
    chunk = min(128 if interpreted else 16, power_of_two(count))
    part = 8 if interpreted else 4
    tiles, slices = blocks(pixels, block), blocks(to.shape[1], part)
    args = (
        to, along, points, count, to.shape[1], tuple(to.shape[2:]), tuple(along.shape), tiles, slices, to.stride(),
        along.stride(), points.stride(),
    )  # fmt: skip
    meta = {**_rule(mode, padding, align, dims), "BLOCK": block, "CHUNK": chunk, "SLICE": part, "num_warps": 4}
    plan = f"tile={block}x{part} chunk={chunk}"
    launch(image_gradient_kernel, tiles * slices * to.shape[0], args, meta, plan, gx, record)
