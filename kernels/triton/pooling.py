"""Pooling forward and backward: a program has BLOCK outputs, or elements of the input, and looks at their windows one
element after the other, so that nothing is added by two programs.

Every tensor is [N, C, D, H, W] with any strides. A dim's windows are six numbers: (in, out, kernel, stride, padding,
dilation); adaptive and fractional windows are found from the first three. See kernels/pooling.h for the rules.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import triton
import triton.language as tl

from . import _math as m
from ._common import Record, blocks, constant, device_of, launch, load, narrow, power_of_two, store, widen

PLAIN = constant(0)
ADAPTIVE = constant(1)
FRACTIONAL = constant(2)

_UNSPECIALISED = ["count", "size", "dims", "divisor", "places"]


@triton.jit
def _points(count, size, BLOCK: tl.constexpr):
    """Coordinates of this program's points, W running fastest, and which of them there are."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = i < count
    w = i % size[4]
    i = i // size[4]
    h = i % size[3]
    i = i // size[3]
    d = i % size[2]
    i = i // size[2]
    return i // size[1], i % size[1], d, h, w, live


@triton.jit
def _at(stride, n, c, d, h, w):
    return n * stride[0] + c * stride[1] + d * stride[2] + h * stride[3] + w * stride[4]


@triton.jit
def _rounded(v, T: tl.constexpr):
    return widen(narrow(v, T))


@triton.jit
def _start(dim, o, sample, T: tl.constexpr):
    """Of a fractional window, by the arithmetic of T."""
    room = _rounded((dim[0] - dim[2]).to(sample.dtype), T)
    gaps = _rounded((dim[1] - 1).to(sample.dtype), T)
    alpha = _rounded(m.divide(sample - sample + room, tl.where(gaps == 0, 1.0, sample - sample + gaps)), T)
    at = _rounded(_rounded(_rounded(o.to(sample.dtype), T) + sample, T) * alpha, T)
    begin = at.to(tl.int64) - _rounded(sample * alpha, T).to(tl.int64)
    return tl.where(o == dim[1] - 1, dim[0] - dim[2], begin)


@triton.jit
def _window(dim, o, sample, KIND: tl.constexpr, T: tl.constexpr):
    """First element of window o, and the one after the last."""
    if KIND == ADAPTIVE:
        return o * dim[0] // dim[1], ((o + 1) * dim[0] + dim[1] - 1) // dim[1]
    elif KIND == FRACTIONAL:
        begin = _start(dim, o, sample, T)
        return begin, begin + dim[2]
    else:
        begin = o * dim[3] - dim[4]
        end = tl.minimum(begin + (dim[2] - 1) * dim[5] + 1, dim[0])
        missing = tl.maximum(-begin, 0)
        return begin + (missing + dim[5] - 1) // dim[5] * dim[5], end


@triton.jit
def _holders(dim, i, KIND: tl.constexpr):
    """The windows that may hold element i: the first, and the one after the last."""
    if KIND == ADAPTIVE:
        return i * dim[1] // dim[0], ((i + 1) * dim[1] + dim[0] - 1) // dim[0]
    elif KIND == FRACTIONAL:
        room, gaps, about = dim[0] - dim[2], dim[1] - 1, 2 + dim[0] // 32
        free = (room == 0) | (gaps == 0)
        begin = tl.maximum(i - dim[2] - about, 0) * gaps // tl.maximum(room, 1)
        end = (i + about) * gaps // tl.maximum(room, 1) + 2
        return tl.where(free, 0, tl.minimum(begin, dim[1])), tl.where(free, dim[1], tl.minimum(end, dim[1]))
    else:
        reach = tl.maximum(i + dim[4] - (dim[2] - 1) * dim[5], 0)
        return (reach + dim[3] - 1) // dim[3], tl.minimum((i + dim[4]) // dim[3] + 1, dim[1])


@triton.jit
def _samples(samples, stride, which, n, c, live, KIND: tl.constexpr):
    """The numbers of a plane that decide on its windows, for D, H and W."""
    if KIND == FRACTIONAL:
        at = n * stride[0] + c * stride[1]
        return (
            load(samples, at + which[0] * stride[2], live),
            load(samples, at + which[1] * stride[2], live),
            load(samples, at + which[2] * stride[2], live),
        )
    else:
        none = n.to(tl.float32)
        return none, none, none


@triton.jit
def _most(begin, end, live):
    return tl.max(tl.where(live, end - begin, 0), axis=0)


@triton.jit(do_not_specialize=_UNSPECIALISED)
def max_kernel(
    y, indices, x, samples, count, size, dims, sy, si, sx, ss, which,
    KIND: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = the greatest element of each window; of equal ones the first, of NaNs the last."""
    n, c, od, oh, ow, live = _points(count, size, BLOCK)
    T: tl.constexpr = x.dtype.element_ty
    s0, s1, s2 = _samples(samples, ss, which, n, c, live, KIND)
    d0, d1 = _window(dims[0], od, s0, KIND, T)
    h0, h1 = _window(dims[1], oh, s1, KIND, T)
    w0, w1 = _window(dims[2], ow, s2, KIND, T)
    at_x = x + n * sx[0] + c * sx[1]
    best = load(x, n, live & (n < 0)) + float("-inf")
    place = (d0 * dims[1][0] + h0) * dims[2][0] + w0
    for i in range(0, _most(d0, d1, live), dims[0][5]):
        for j in range(0, _most(h0, h1, live), dims[1][5]):
            for k in range(0, _most(w0, w1, live), dims[2][5]):
                d, h, w = d0 + i, h0 + j, w0 + k
                there = live & (d < d1) & (h < h1) & (w < w1)
                v = widen(tl.load(at_x + d * sx[2] + h * sx[3] + w * sx[4], mask=there, other=float("-inf")))
                better = there & ((v > best) | (v != v))
                best = tl.where(better, v, best)
                place = tl.where(better, (d * dims[1][0] + h) * dims[2][0] + w, place)
    store(y, _at(sy, n, c, od, oh, ow), best, live)
    if PLACES:
        tl.store(indices + _at(si, n, c, od, oh, ow), place.to(indices.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=_UNSPECIALISED)
def max_backward_kernel(gx, g, indices, count, size, dims, so, sg, si, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """gx = the sum of the gradients of the windows that have their maximum here."""
    n, c, d, h, w, live = _points(count, size, BLOCK)
    d0, d1 = _holders(dims[0], d, KIND)
    h0, h1 = _holders(dims[1], h, KIND)
    w0, w1 = _holders(dims[2], w, KIND)
    here = (d * dims[1][0] + h) * dims[2][0] + w
    total = load(g, n, live & (n < 0))
    for i in range(_most(d0, d1, live)):
        for j in range(_most(h0, h1, live)):
            for k in range(_most(w0, w1, live)):
                od, oh, ow = d0 + i, h0 + j, w0 + k
                there = live & (od < d1) & (oh < h1) & (ow < w1)
                place = tl.load(indices + _at(si, n, c, od, oh, ow), mask=there, other=-1).to(tl.int64)
                total += load(g, _at(sg, n, c, od, oh, ow), there & (place == here))
    store(gx, _at(so, n, c, d, h, w), total, live)


@triton.jit
def _power(v, P: tl.constexpr):
    """v^P as torch has it: NaN of a negative v where P is not whole."""
    if P == 1:
        return v
    elif P == 0:
        return v - v + 1
    elif P == 0.5:
        if v.dtype == tl.float64:
            return tl.sqrt(v)
        else:
            return tl.sqrt_rn(v)
    elif P == -1:
        return m.divide(v - v + 1, v)
    elif int(P) == P and P > 0 and P <= 8:
        r = v
        for _ in tl.static_range(int(P) - 1):
            r = r * v
        return r
    else:
        wide = v.to(tl.float64)
        r = m.exp(P * tl.log(tl.abs(wide)))
        if int(P) != P:
            r = tl.where(wide < 0, float("nan"), r)
        elif P % 2 != 0:
            r = tl.where(wide < 0, -r, r)
        return r.to(v.dtype)


@triton.jit
def _counted(dim, o, KIND: tl.constexpr, PADDED: tl.constexpr):
    """What an average divides by in this dim."""
    if KIND == PLAIN and PADDED:
        begin = o * dim[3] - dim[4]
        return tl.minimum(begin + dim[2], dim[0] + dim[4]) - begin
    else:
        begin, end = _window(dim, o, 0.0, KIND, tl.float32)
        return end - begin


@triton.jit
def _divisor(dims, od, oh, ow, divisor, like, KIND: tl.constexpr, PADDED: tl.constexpr, OWN: tl.constexpr):
    if OWN:
        return like - like + divisor
    else:
        held = _counted(dims[0], od, KIND, PADDED) * _counted(dims[1], oh, KIND, PADDED)
        return tl.maximum(held * _counted(dims[2], ow, KIND, PADDED), 1).to(like.dtype)


@triton.jit(do_not_specialize=_UNSPECIALISED)
def average_kernel(
    y, x, count, size, dims, sy, sx, divisor,
    KIND: tl.constexpr, PADDED: tl.constexpr, OWN: tl.constexpr, NORM: tl.constexpr, ROOT: tl.constexpr,
    FULL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = the average of each window, or with NORM the root of the sum of its powers."""
    n, c, od, oh, ow, live = _points(count, size, BLOCK)
    d0, d1 = _window(dims[0], od, 0.0, KIND, tl.float32)
    h0, h1 = _window(dims[1], oh, 0.0, KIND, tl.float32)
    w0, w1 = _window(dims[2], ow, 0.0, KIND, tl.float32)
    at_x = x + n * sx[0] + c * sx[1]
    total = load(x, n, live & (n < 0))
    for i in range(_most(d0, d1, live)):
        for j in range(_most(h0, h1, live)):
            for k in range(_most(w0, w1, live)):
                d, h, w = d0 + i, h0 + j, w0 + k
                there = live & (d < d1) & (h < h1) & (w < w1)
                v = load(at_x, d * sx[2] + h * sx[3] + w * sx[4], there)
                if NORM != 0:
                    v = tl.where(there, _power(v, NORM), 0.0)
                total += v
    mean = m.divide(total, _divisor(dims, od, oh, ow, divisor, total, KIND, PADDED, OWN))
    if NORM != 0:
        mean = _power(mean * FULL, ROOT)
    store(y, _at(sy, n, c, od, oh, ow), mean, live)


@triton.jit(do_not_specialize=_UNSPECIALISED)
def average_backward_kernel(
    gx, g, x, y, count, size, dims, so, sg, sx, sy, divisor,
    KIND: tl.constexpr, PADDED: tl.constexpr, OWN: tl.constexpr, NORM: tl.constexpr, LESS: tl.constexpr,
    MINUS: tl.constexpr, FULL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gx = the sum of the gradients of the windows that hold this element, each divided as its sum was."""
    n, c, d, h, w, live = _points(count, size, BLOCK)
    d0, d1 = _holders(dims[0], d, KIND)
    h0, h1 = _holders(dims[1], h, KIND)
    w0, w1 = _holders(dims[2], w, KIND)
    total = load(g, n, live & (n < 0))
    for i in range(_most(d0, d1, live)):
        for j in range(_most(h0, h1, live)):
            for k in range(_most(w0, w1, live)):
                od, oh, ow = d0 + i, h0 + j, w0 + k
                there = live & (od < d1) & (oh < h1) & (ow < w1)
                v = load(g, _at(sg, n, c, od, oh, ow), there)
                if NORM != 0:
                    r = load(y, _at(sy, n, c, od, oh, ow), there)
                    v = tl.where(r == 0, 0.0, v * _power(tl.where(r == 0, 1.0, r), MINUS) * FULL)
                by = _divisor(dims, od, oh, ow, divisor, total, KIND, PADDED, OWN)
                total += tl.where(there, m.divide(v, by), 0.0)
    if NORM != 0:
        total = total * _power(load(x, _at(sx, n, c, d, h, w), live), LESS)
    store(gx, _at(so, n, c, d, h, w), total, live)


@triton.jit(do_not_specialize=_UNSPECIALISED)
def mark_kernel(winner, indices, count, size, si, places, BLOCK: tl.constexpr):
    """winner[plane, place] = 1 + the number of the last element that goes there."""
    n, c, d, h, w, live = _points(count, size, BLOCK)
    number = (d * size[3] + h) * size[4] + w
    place = tl.load(indices + _at(si, n, c, d, h, w), mask=live, other=0)
    there = live & (place >= 0) & (place < places)
    tl.device_assert(there | (live == 0), "an index is outside of the output")
    tl.atomic_max(winner + (n * size[1] + c) * places + place, number + 1, mask=there)


@triton.jit
def _of_place(place, size, stride, n, c):
    row = place // size[4]
    return _at(stride, n, c, row // size[3], row % size[3], place % size[4])


@triton.jit(do_not_specialize=_UNSPECIALISED)
def take_kernel(y, winner, x, count, size, small, sy, sx, BLOCK: tl.constexpr):
    """y = the winner of each place, or 0."""
    n, c, d, h, w, live = _points(count, size, BLOCK)
    number = ((n * size[1] + c) * size[2] + d) * size[3] + h
    who = tl.load(winner + number * size[4] + w, mask=live, other=0)
    v = tl.load(x + _of_place(tl.maximum(who - 1, 0), small, sx, n, c), mask=live & (who > 0), other=0.0)
    tl.store(y + _at(sy, n, c, d, h, w), v, mask=live)


@triton.jit(do_not_specialize=_UNSPECIALISED)
def give_kernel(gx, g, indices, count, size, large, so, sg, si, places, BLOCK: tl.constexpr):
    """gx = the gradient at each element's place."""
    n, c, d, h, w, live = _points(count, size, BLOCK)
    place = tl.load(indices + _at(si, n, c, d, h, w), mask=live, other=0)
    there = live & (place >= 0) & (place < places)
    tl.device_assert(there | (live == 0), "an index is outside of the output")
    v = tl.load(g + _of_place(place, large, sg, n, c), mask=there, other=0.0)
    tl.store(gx + _at(so, n, c, d, h, w), v, mask=live)


Dims = tuple[tuple[int, ...], ...]  # of D, H and W: see above


def _image(t: Tensor, dims: int) -> Tensor:
    """As [N, C, D, H, W]."""
    t = t if t.dim() == dims + 2 else t.unsqueeze(0)
    for _ in range(3 - dims):
        t = t.unsqueeze(2)
    return t


def _run(kernel, out: Tensor, args: Sequence, meta: dict, record: Record | None) -> None:
    n = out.numel()
    if n == 0:
        return
    block = min(4096, power_of_two(n)) if device_of(out).multiprocessors == 8 else 256
    sizes = tuple(out.shape)
    launch(
        kernel, blocks(n, block), [*args[0], n, sizes, *args[1]], {**meta, "BLOCK": block, "num_warps": 4},
        f"block={block}", out, record,
    )  # fmt: skip


def max_pool(
    y: Tensor, indices: Tensor | None, x: Tensor, samples: Tensor | None, kind: int, windows: Dims, dims: int,
    *, record: Record | None = None,
) -> None:  # fmt: skip
    """y and, if wanted, the places of the maxima."""
    y, x = _image(y, dims), _image(x, dims)
    places = y if indices is None else _image(indices, dims)
    which = (0, 1, 2) if dims == 3 else (0, 1, 0)  # of two numbers torch gives W the first
    s = x if samples is None else samples
    ss = (0, 0, 0) if samples is None else samples.stride()
    more = [windows, y.stride(), places.stride(), x.stride(), ss, which]
    _run(max_kernel, y, ([y, places, x, s], more), {"KIND": kind, "PLACES": indices is not None}, record)


def max_pool_backward(
    gx: Tensor, g: Tensor, indices: Tensor, kind: int, windows: Dims, dims: int, *, record: Record | None = None
) -> None:
    """The gradient of the maxima at their places."""
    gx, g, indices = (_image(t, dims) for t in (gx, g, indices))
    more = [windows, gx.stride(), g.stride(), indices.stride()]
    _run(max_backward_kernel, gx, ([gx, g, indices], more), {"KIND": kind}, record)


def average(
    y: Tensor, x: Tensor, kind: int, windows: Dims, dims: int, padded: bool, divisor: int | None, norm: float,
    full: int, *, record: Record | None = None,
) -> None:  # fmt: skip
    """y = averages, or norms."""
    y, x = _image(y, dims), _image(x, dims)
    meta = {"KIND": kind, "PADDED": padded, "OWN": divisor is not None, "NORM": norm, "FULL": full}
    meta["ROOT"] = 1 / norm if norm else 0.0
    _run(average_kernel, y, ([y, x], [windows, y.stride(), x.stride(), float(divisor or 1)]), meta, record)


def average_backward(
    gx: Tensor, g: Tensor, x: Tensor | None, y: Tensor | None, kind: int, windows: Dims, dims: int, padded: bool,
    divisor: int | None, norm: float, full: int, *, record: Record | None = None,
) -> None:  # fmt: skip
    """The gradient of `average`; x and y of norms alone."""
    gx, g = _image(gx, dims), _image(g, dims)
    x, y = (g if t is None else _image(t, dims) for t in (x, y))
    meta = {"KIND": kind, "PADDED": padded, "OWN": divisor is not None, "NORM": norm, "FULL": full}
    meta |= {"LESS": norm - 1, "MINUS": 1 - norm}
    more = [windows, gx.stride(), g.stride(), x.stride(), y.stride(), float(divisor or 1)]
    _run(average_backward_kernel, gx, ([gx, g, x, y], more), meta, record)


def max_unpool(y: Tensor, x: Tensor, indices: Tensor, dims: int, *, record: Record | None = None) -> None:
    """Elements of x at their places in y, the last of several; zeros elsewhere."""
    y, x, indices = (_image(t, dims) for t in (y, x, indices))
    winner = torch.zeros(y.numel(), dtype=torch.int64, device=y.device)
    places = y[0, 0].numel() if y.numel() else 0
    _run(mark_kernel, x, ([winner, indices], [indices.stride(), places]), {}, record)
    _run(take_kernel, y, ([y, winner, x], [tuple(x.shape), y.stride(), x.stride()]), {}, record)


def max_unpool_backward(gx: Tensor, g: Tensor, indices: Tensor, dims: int, *, record: Record | None = None) -> None:
    """The gradients at the elements' places."""
    gx, g, indices = (_image(t, dims) for t in (gx, g, indices))
    more = [tuple(g.shape), gx.stride(), g.stride(), indices.stride(), g[0, 0].numel() if g.numel() else 0]
    _run(give_kernel, gx, ([gx, g, indices], more), {}, record)
