"""Padding, shuffles of pixels and channels and sliding windows as ops: each is linear, and its gradient one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from ..core.dims import of
from ..core.op import op

_F = torch.nn.functional
Shape = Sequence[int]
_MODES = ("constant", "reflect", "replicate", "circular")


def _like(x: Tensor, shape: Shape, keeps: bool = True) -> Tensor:
    """A new tensor of that shape, channels last where x is."""
    made = x.new_empty(shape)
    last = suggest_memory_format(x) if keeps else torch.contiguous_format
    return made if last is torch.contiguous_format else made.to(memory_format=last)


# ---- padding ----


def _sides(x: Tensor, pad: Shape) -> list[tuple[int, int]]:
    """What each dim is padded by, in front and behind."""
    given = list(zip(pad[::2], pad[1::2], strict=True))
    return [(0, 0)] * (x.dim() - len(given)) + given[::-1]


def _resized(x: Tensor, pad: Shape, mode: str) -> Tensor:
    sides = _sides(x, pad)
    if mode == "constant" and all(p <= 0 for p in pad):
        for d, (lo, hi) in enumerate(sides):
            x = x.narrow(d, -lo, x.shape[d] + lo + hi)
        return torch.empty_like(x)
    return _like(x, [n + lo + hi for n, (lo, hi) in zip(x.shape, sides, strict=True)], mode != "circular")


def _unpadded_fake(g: Tensor, pad: Shape, mode: str, *_: object) -> Tensor:
    return _resized(g, [-p for p in pad], mode)


def _sources(n: int, lo: int, hi: int, mode: str) -> list[int]:
    """Which of a dim's n elements each of the padded ones comes from."""
    places = range(-lo, n + hi)
    if mode == "circular":
        kept = n + min(lo, 0) + min(hi, 0)
        return [i + kept if i < 0 else i - kept if i >= n else i for i in places]
    if mode == "replicate":
        return [min(max(i, 0), n - 1) for i in places]
    return [-i if i < 0 else 2 * (n - 1) - i if i >= n else i for i in places]


def _unpadded_by_torch(g: Tensor, pad: Shape, mode: str) -> Tensor:
    if mode == "constant":
        return _F.pad(g, [-p for p in pad])
    for d, (lo, hi) in enumerate(_sides(g, pad)):
        if (lo, hi) == (0, 0):
            continue
        n = g.shape[d] - lo - hi
        shape = [n if i == d else size for i, size in enumerate(g.shape)]
        sources = torch.tensor(_sources(n, lo, hi, mode), dtype=torch.int64, device=g.device)
        g = g.new_zeros(shape).index_add(d, sources, g)
    return g if any(pad) else g.clone()


def _refuse(x: Tensor, pad: Shape, mode: str, value: float | None) -> tuple[Any, ...]:
    """What torch calls not implemented."""
    if mode not in _MODES:
        raise NotImplementedError(f"neurokern.pad: argument mode is {mode!r}, expected one of {', '.join(_MODES)}")
    dims = len(pad) // 2
    fits = mode == "constant" or (1 <= dims <= 3 and x.dim() - dims in (1, 2))
    if len(pad) % 2 == 0 and dims <= x.dim() and not fits:
        raise NotImplementedError(
            f"neurokern.pad: mode {mode!r} does not pad argument input of shape {list(x.shape)} by {list(pad)}, "
            "expected two numbers for each dim but a channel and a batch, which may be missing"
        )
    return x, pad, mode, value


def _pad_by_torch(x: Tensor, pad: Shape, mode: str, value: float | None) -> Tensor:
    """torch's own; where it is traced, as without writing in place: decompositions may not."""
    traced = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    if mode != "circular" or value or not traced:
        return _F.pad(x, pad, mode, value)
    _refuse(x, pad, mode, value)
    for d, (lo, hi) in enumerate(_sides(x, pad)):
        kept = x.narrow(d, max(-lo, 0), x.shape[d] + min(lo, 0) + min(hi, 0))
        front = [kept.narrow(d, kept.shape[d] - lo, lo)] if lo > 0 else []
        behind = [kept.narrow(d, 0, hi)] if hi > 0 else []
        x = torch.cat([*front, kept, *behind], d) if front or behind else kept
    return x.clone(memory_format=torch.contiguous_format)


def _pad_dims(shape: Shape, pad: Shape, *_: object) -> tuple[list[Any], list[Any]]:
    """Dims that are padded stay whole."""
    padded = [any(pad[2 * i : 2 * i + 2]) for i in range(len(shape))][::-1]
    names = [None if p else n for n, p in zip(of(shape), padded, strict=True)]
    return [names], [names]


pad = op(
    "pad(Tensor input, int[] pad, str mode, float? value) -> Tensor y",
    fake=lambda x, pad, mode, value: _resized(x, pad, mode),
    gradients=_unpadded_fake,
    formula=lambda g, amounts, mode, value: pad_gradient(g, amounts, mode),
    torch=_pad_by_torch,
    prepare=_refuse,
    dims=lambda y, x, amounts, *_: _pad_dims(y if x is None else x, amounts),
)
# the gradient of padding as an op of its own, whose gradient is padding
pad_gradient = op(
    "pad_gradient(Tensor g, int[] pad, str mode) -> Tensor gx",
    entry="pad_backward",
    backward="pad_gradient_backward",
    fake=_unpadded_fake,
    gradients=lambda g, pad, mode: _resized(g, pad, mode),
    formula=lambda g, amounts, mode: pad(g, amounts, mode, None),
    torch=_unpadded_by_torch,
    title="pad",
    dims=lambda y, x, amounts, *_: _pad_dims(y if x is None else x, amounts),
)


# ---- shuffles ----


def _enlarged(x: Tensor, r: int) -> Tensor:
    *batch, c, h, w = x.shape
    return _like(x, [*batch, c // (r * r), h * r, w * r], x.dim() == 4)


def _reduced(x: Tensor, r: int) -> Tensor:
    *batch, c, h, w = x.shape
    return _like(x, [*batch, c * r * r, h // r, w // r], x.dim() == 4)


def _batch(y: Shape | None, x: Shape | None, *_: object) -> tuple[list[Any], list[Any]]:
    """The dims before the last three may be cut."""
    names = of(x, y)
    names[-3:] = [None] * 3
    return [names], [names]


def _but_channels(y: Shape | None, x: Shape | None, *_: object) -> tuple[list[Any], list[Any]]:
    names = [None if d == 1 else n for d, n in enumerate(of(x, y))]
    return [names], [names]


def _turned(x: Tensor, groups: int) -> Tensor:
    """The channel shuffle that undoes the one of so many groups; what torch calls it, too."""
    return channel_shuffle(x, x.shape[1] // groups) if x.shape[1] else x.clone()


pixel_shuffle = op(
    "pixel_shuffle(Tensor input, int upscale_factor) -> Tensor y",
    fake=_enlarged,
    gradients=_reduced,
    formula=lambda g, r: pixel_unshuffle(g, r),
    torch=_F.pixel_shuffle,
    dims=_batch,
)
pixel_unshuffle = op(
    "pixel_unshuffle(Tensor input, int downscale_factor) -> Tensor y",
    fake=_reduced,
    gradients=_enlarged,
    formula=lambda g, r: pixel_shuffle(g, r),
    torch=_F.pixel_unshuffle,
    dims=_batch,
)
channel_shuffle = op(
    "channel_shuffle(Tensor input, int groups) -> Tensor y",
    fake=lambda x, groups: _like(x, x.shape),
    gradients=lambda g, groups: _like(g, g.shape),
    formula=_turned,
    torch=_F.channel_shuffle,
    dims=_but_channels,
)


# ---- windows ----


def _columns_fake(x: Tensor, size: Shape, kernel: Shape, dilation: Shape, padding: Shape, stride: Shape) -> Tensor:
    *batch, c, h, w = x.shape
    walk = zip((h, w), kernel, dilation, padding, stride, strict=True)
    places = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in walk]
    return x.new_empty([*batch, c * kernel[0] * kernel[1], places[0] * places[1]])


def _image_fake(x: Tensor, size: Shape, kernel: Shape, *_: Shape) -> Tensor:
    *batch, c, _length = x.shape
    return x.new_empty([*batch, c // (kernel[0] * kernel[1]), *size])


def _batch_of_windows(images: bool, y: Shape | None, x: Shape | None, *_: object) -> tuple[list[Any], list[Any]]:
    """A batch may be cut; an image has a dim more than its columns."""
    batched = len(x) == (4 if images else 3) if x is not None else len(y or ()) == (3 if images else 4)
    name = [0] if batched else []
    image, columns = [*name, None, None, None], [*name, None, None]
    return ([image], [columns]) if images else ([columns], [image])


unfold = op(
    "unfold(Tensor input, int[] output_size, int[] kernel_size, int[] dilation, int[] padding, int[] stride)"
    " -> Tensor y",
    fake=_columns_fake,
    gradients=_image_fake,
    formula=lambda g, *window: fold(g, *window),
    torch=lambda x, size, *window: _F.unfold(x, *window),
    dims=lambda y, x, *_: _batch_of_windows(True, y, x),
)
fold = op(
    "fold(Tensor input, int[] output_size, int[] kernel_size, int[] dilation, int[] padding, int[] stride) -> Tensor y",
    fake=_image_fake,
    gradients=_columns_fake,
    formula=lambda g, *window: unfold(g, *window),
    torch=_F.fold,
    dims=lambda y, x, *_: _batch_of_windows(False, y, x),
)
