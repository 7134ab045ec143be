"""Interpolation and its gradient: a program has BLOCK elements of what is written, and adds the terms of each one.

Every tensor is [N, C, D, H, W] with any strides. What an output of a dim is made of is a list made on the host, by the
rules of kernels/resampling.h: its terms are numbers start[o] .. start[o + 1] - 1 of `source` and `weight`. A gradient
has the same lists turned round, so that nothing is added by two programs.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

import triton
import triton.language as tl

from ._common import Record, blocks, device_of, launch, load, power_of_two, store
from .pooling import _at, _image, _points


@triton.jit
def _terms(start, o, live):
    """The first term of output o, and the one after the last."""
    return tl.load(start + o, mask=live, other=0), tl.load(start + o + 1, mask=live, other=0)


@triton.jit(do_not_specialize=["count", "size", "most"])
def gather_kernel(
    y, x, count, size, sy, sx, start_d, source_d, weight_d, start_h, source_h, weight_h, start_w, source_w, weight_w,
    most, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = sums of x, nested as in torch: of rows in each plane, of terms in each row."""
    n, c, od, oh, ow, live = _points(count, size, BLOCK)
    d0, d1 = _terms(start_d, od, live)
    h0, h1 = _terms(start_h, oh, live)
    w0, w1 = _terms(start_w, ow, live)
    plane = n * sx[0] + c * sx[1]
    volume = load(x, plane, live & (n < 0))
    for i in range(most[0]):
        in_d = live & (d0 + i < d1)
        at_d = plane + tl.load(source_d + d0 + i, mask=in_d, other=0) * sx[2]
        area = load(x, plane, live & (n < 0))
        for j in range(most[1]):
            in_h = in_d & (h0 + j < h1)
            at_h = at_d + tl.load(source_h + h0 + j, mask=in_h, other=0) * sx[3]
            row = load(x, plane, live & (n < 0))
            for k in range(most[2]):
                there = in_h & (w0 + k < w1)
                at = at_h + tl.load(source_w + w0 + k, mask=there, other=0) * sx[4]
                row += load(x, at, there) * tl.load(weight_w + w0 + k, mask=there, other=0.0)
            area += row * tl.load(weight_h + h0 + j, mask=in_h, other=0.0)
        volume += area * tl.load(weight_d + d0 + i, mask=in_d, other=0.0)
    store(y, _at(sy, n, c, od, oh, ow), volume, live)


# ---- host ----


def _fma(x: np.ndarray, y: np.ndarray | float, z: float) -> np.ndarray:
    """x y + z in the type of x, rounded once."""
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    return (np.asarray(x, wide) * np.asarray(y, wide) + wide(z)).astype(x.dtype)


def _near(x: np.ndarray, a: float) -> np.ndarray:
    return _fma(_fma(x, a + 2, -(a + 3)) * x, x, 1)


def _far(x: np.ndarray, a: float) -> np.ndarray:
    return _fma(_fma(_fma(x, a, -5 * a), x, 8 * a), x, -4 * a)


def _scale(size: int, out: int, align: bool, given: float | None, real: type) -> np.floating:
    if align:
        return real(real(size - 1) / real(out - 1)) if out > 1 else real(0)
    return real(1.0 / given) if given is not None and given > 0 else real(real(size) / real(out))


def _antialiased(size: int, out: int, scale: np.floating, reach: int, real: type) -> tuple[np.ndarray, ...]:
    wide = scale >= 1
    support = real(reach * float(scale)) if wide else real(reach)
    inverse = real(1.0 / float(scale)) if wide else real(1)
    center = (float(scale) * (np.arange(out) + 0.5)).astype(real)
    first = np.maximum(np.trunc((center - support).astype(np.float64) + 0.5).astype(np.int64), 0)
    end = np.minimum(np.trunc((center + support).astype(np.float64) + 0.5).astype(np.int64), size)
    count = np.clip(end - first, 0, math.ceil(np.float32(support)) * 2 + 1)
    k = np.arange(max(int(count.max()), 1))
    at = ((first[:, None] + k).astype(real) - center[:, None]).astype(np.float64) + 0.5
    t = np.abs((at * float(inverse)).astype(real))
    cubic = np.where(t < 1, _near(t, -0.5), np.where(t < 2, _far(t, -0.5), 0))
    weight = np.maximum(1 - t, 0) if reach == 1 else cubic
    weight = np.where(k < count[:, None], weight, 0).astype(real)
    total = np.zeros(out, real)
    for column in weight.T:
        total += column
    weight = weight / np.where(total == 0, real(1), total)[:, None]
    return first, count, weight


def taps(mode: str, size: int, out: int, align: bool, given: float | None, real: type) -> tuple[np.ndarray, ...]:
    """(first, count, weights) of each output: of elements first, first + 1, ..., as in kernels/resampling.h."""
    scale, o = _scale(size, out, align, given, real), np.arange(out).astype(real)
    if size == out and mode not in ("nearest", "nearest-exact", "cubic"):
        return np.arange(out), np.ones(out, np.int64), np.ones((out, 1), real)
    if mode.startswith("antialiased"):
        return _antialiased(size, out, scale, 1 if mode == "antialiased-linear" else 2, real)
    ones = np.ones((out, 1), real)
    if mode == "nearest" or align:
        at = scale * o
    else:
        at = _fma(o + real(0.5), scale, -0.5)
        at = at if mode == "cubic" else np.maximum(at, real(0))
    if mode.startswith("nearest"):
        at = at.astype(np.float64) + 0.5 if mode == "nearest-exact" else at
        return np.minimum(np.floor(at.astype(np.float32)).astype(np.int64), size - 1), np.ones(out, np.int64), ones
    first = np.minimum(np.floor(at.astype(np.float32)).astype(np.int64), size - 1)
    t = np.clip(at - first.astype(real), real(0), real(1))
    if mode == "linear":
        return first, np.full(out, 2), np.stack([1 - t, t], 1)
    a, s = -0.75, 1 - t
    return first - 1, np.full(out, 4), np.stack([_far(t + 1, a), _near(t, a), _near(s, a), _far(s + 1, a)], 1)


@lru_cache(maxsize=64)
def _table(
    mode: str,
    size: int,
    out: int,
    align: bool,
    given: float | None,
    transposed: bool,
    double: bool,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """(start, source, weight) on the device, and the most terms of an output."""
    first, count, weight = taps(mode, size, out, align, given, np.float64 if double else np.float32)
    o, k = np.nonzero(np.arange(weight.shape[1]) < count[:, None])
    source, values = np.clip(first[o] + k, 0, size - 1), weight[o, k]
    if transposed:
        order = np.argsort(source, kind="stable")
        o, source, values = source[order], o[order], values[order]
    terms = np.bincount(o, minlength=size if transposed else out)
    start = np.concatenate([[0], np.cumsum(terms)])
    made = (start.astype(np.int64), source.astype(np.int64), values)
    return *(torch.from_numpy(np.ascontiguousarray(t)).to(device) for t in made), int(terms.max())  # type: ignore[return-value]


def interpolate(
    y: Tensor,
    x: Tensor,
    mode: str,
    output_size: list[int],
    input_size: list[int],
    align: bool,
    scales: tuple[float | None, ...],
    transposed: bool,
    record: Record | None = None,
) -> None:
    """y = x at another size; transposed: y = the gradient of the input, x that of the output."""
    if y.numel() == 0:
        return
    dims = y.dim() - 2
    tables = [_table("nearest", 1, 1, False, None, False, y.dtype == torch.float64, y.device)] * (3 - dims)
    for size, out, scale in zip(input_size, output_size, scales[3 - dims :], strict=True):
        tables.append(_table(mode, size, out, align, scale, transposed, y.dtype == torch.float64, y.device))
    to, of = _image(y, dims), _image(x, dims)
    count = y.numel()
    block = min(4096, power_of_two(count)) if device_of(y).multiprocessors == 8 else 256
    given = (t for table in tables for t in table[:3])
    most = tuple(table[3] for table in tables)
    args = (to, of, count, tuple(to.shape), to.stride(), of.stride(), *given, most)
    launch(gather_kernel, blocks(count, block), args, {"BLOCK": block, "num_warps": 4}, f"block={block}", y, record)
