"""conv_transpose1d to conv_transpose3d."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern import nn
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample

from ._convolutions import CONV_OPS, channels, drawn_images, ended, flops, last, moved, walk

TF = torch.nn.functional


def transpose_samples(make: Maker, dims: int) -> Iterator[Sample]:
    size, window = [7, 6, 5][:dims], [3, 4, 2][:dims]
    x, w, b = make(2, 5, *size), make(5, 4, *window, scale=0.3), make(4)
    yield Sample("odd sizes", (x, w, b), chosen=True)
    yield Sample("a stride, as upsampling has it", (x, w, b, 2, 1, 1), chosen=True)
    yield Sample("a stride larger than the window", (make(1, 3, *size), make(3, 2, *[2] * dims), None, 3))
    more = [2, 1, 0][:dims]
    yield Sample(
        "output padding of a dilation, at stride 1",
        (make(1, 3, *size), make(3, 2, *[3] * dims), make(2), 1, 1, more, 1, 3),
    )
    yield Sample("without a batch or a bias", (make(5, *size), w, None, 1, 1))
    yield Sample("groups", (make(2, 6, *size), make(6, 2, *window, scale=0.4), make(4), 2, 0, 0, 2))
    yield Sample(
        "depthwise, two results each", (make(1, 7, *size), make(7, 2, *window, scale=0.4), make(14), 2, 1, 0, 7)
    )
    yield Sample("one element for each channel", (x, make(5, 3, *[1] * dims), make(3)))
    yield Sample("one pixel in", (make(2, 5, *[1] * dims), w, b, 2))
    yield Sample("no images: gradients of zero", (make(0, 5, *size), w, b, 2))
    yield Sample(
        "NaN and infinity reach their windows alone", (ended(make, 1, 2, *size), make(2, 3, *window), make(3), 2)
    )
    sliced = make(2, 10, *[2 * n for n in size])[:, ::2, ..., ::2][(..., *[slice(0, n) for n in size])]
    yield Sample("cut out of a larger tensor", (sliced, make(4, 5, *window, scale=0.3).transpose(0, 1), b, 2))
    if dims > 1:
        yield Sample("channels last", (last(x), w, b, 2, 1), chosen=dims == 2)
        yield Sample("weight channels last", (x, last(w), b, 2, 1))
    if dims == 2:
        numbers = ((1, 3), (2, 0), (0, 2), 1, (2, 1))
        yield Sample("other numbers for each dim", (make(1, 3, 6, 5), make(3, 4, 3, 2), make(4), *numbers))
        blocks = (make(2, 40, 13, 14), make(40, 37, 4, 4, scale=0.1), make(37), 2, 1)
        yield Sample("blocks in every direction", blocks, heavy=True)


def transpose_smooth(make: Maker, dims: int) -> Iterator[Sample]:
    size = [3, 2, 2][:dims]
    yield Sample(
        "stride, padding and more behind", (make(2, 2, *size), make(2, 3, *[3, 2, 2][:dims]), make(3), 2, 1, 1)
    )
    yield Sample("groups and dilation, without a batch", (make(4, *size), make(4, 1, *[2] * dims), None, 1, 0, 0, 2, 2))


def transpose_bad(make: Maker, dims: int) -> Iterator[BadCall]:
    x, w, b = make(2, 4, *[5] * dims), make(4, 6, *[3] * dims), make(6)
    shape, kernel = f"{list(x.shape)}", f"{list(w.shape)}"
    yield BadCall("a list for a tensor", ([1.0], w, b), says=("input", "list"))
    yield BadCall("a list for a weight", (x, [1.0], b), says=("weight", "list"))
    yield BadCall("an image of too few dimensions", (x[0, 0], w, b), says=("input", str(list(x.shape[2:]))))
    yield BadCall("an image of too many dimensions", (x[None], w, b), says=("input", f"[1, {shape[1:]}"))
    yield BadCall("a weight of too few dimensions", (x, w[0], b), says=("weight", str(list(w.shape[1:]))))
    yield BadCall("a weight of too many dimensions", (x, w[None], b), says=("weight", f"[1, {kernel[1:]}"))
    yield BadCall("channels that don't fit", (x[:, :3], w, b), says=("input", "3 channels", "expected 4"))
    yield BadCall("channels that groups don't divide", (x, w, None, 1, 0, 0, 3), says=("weight", "groups 3"))
    yield BadCall("a bias that doesn't fit", (x, w, b[:4]), says=("bias", "[4]", "expected [6]"))
    yield BadCall("a bias of one group", (x, w, b, 1, 0, 0, 2), says=("bias", "[6]", "expected [12]"))
    yield BadCall("a window without elements", (x, w[..., :0], b), says=("weight", kernel[:-2] + "0]"))
    yield BadCall("no results", (x, w[:, :0], b[:0]), says=("weight", "[4, 0, "))
    yield BadCall("no channels", (x[:, :0], w[:0], b), says=("weight", "[0, 6, "))
    yield BadCall("images without pixels", (x[..., :0], w, b), says=("input", shape[:-2] + "0]"))
    yield BadCall("a weight of another dtype", (x, w.double(), b), says=("weight", "float64"))
    yield BadCall("a bias of another dtype", (x, w, b.half()), says=("bias", "float16"))
    for name in ("stride", "padding", "output_padding", "dilation"):
        yield BadCall(
            f"{name}: too many numbers", (x, w, b), {name: [1] * (dims + 1)}, (name, f"expected an int or {dims} ints")
        )
        yield BadCall(f"{name}: no numbers", (x, w, b), {name: []}, (name, "[]"))
        yield BadCall(f"{name}: half a number", (x, w, b), {name: 1.5}, (name, "1.5"))
        yield BadCall(f"{name}: None", (x, w, b), {name: None}, (name, "None"))
        yield BadCall(f"{name}: a bool", (x, w, b), {name: True}, (name, "True"))
        yield BadCall(f"{name}: negative", (x, w, b), {name: -1}, (name, "-1"))
    yield BadCall("stride: 0", (x, w, b, 0), says=("stride", "[0"))
    yield BadCall("dilation: 0", (x, w, b), {"dilation": 0}, ("dilation", "[0"))
    yield BadCall("padding: same", (x, w, b), {"padding": "same"}, ("padding", "'same'"))
    yield BadCall("output padding of a stride", (x, w, b, 2, 0, 2), says=("output_padding", "[2"))
    yield BadCall("nothing of the output is left", (x, w, b, 1, 4), says=("input", "padding"))
    yield BadCall("groups: 0", (x, w, b), {"groups": 0}, ("groups", "0"))
    yield BadCall("groups: half a number", (x, w, b), {"groups": 1.5}, ("groups", "1.5"))


def transpose_drawn(make: Maker, draw: Draw, dims: int) -> Sample:
    _, window, stride, padding, dilation = walk(draw, dims)
    pixels = [draw.integer(1, 8 if dims < 3 else 4) for _ in range(dims)]
    more = [draw.integer(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
    numbers = zip(pixels, window, stride, padding, dilation, strict=True)
    # at least a pixel of the output is left
    padding = [min(p, ((n - 1) * s + d * (k - 1)) // 2) for n, k, s, p, d in numbers]
    groups, c, o = channels(draw)
    x = drawn_images(make, draw, draw.integer(0, 3), groups * c, *pixels)
    weight = make(groups * c, o, *window, scale=1 / math.sqrt(c))
    bias = make(groups * o) if draw.integer(0, 1) else None
    return Sample("drawn", (x, weight, bias, stride, padding, more, groups, dilation))


def transpose_spec(dims: int) -> OpSpec:
    face, cls = f"conv_transpose{dims}d", f"ConvTranspose{dims}d"
    reference = getattr(TF, face)

    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        made = [getattr(n, cls)(4, 6, 3, 2, 1, 1, groups=2) for n in (nn, torch.nn)]
        return made[0], made[1], (make(2, 4, *[4, 3, 2][:dims]),)

    return OpSpec(
        name=face,
        family="convolution",
        op=getattr(F, face),
        torch=reference,
        samples=partial(transpose_samples, dims=dims),
        smooth=partial(transpose_smooth, dims=dims),
        drawn=partial(transpose_drawn, dims=dims),
        flops=partial(flops, f=reference, transposed=True),
        bytes=partial(moved, f=reference),
        scale="absolute",
        registered=CONV_OPS,
        bad=partial(transpose_bad, dims=dims),
        layer=layer,
    )


SPECS: tuple[OpSpec, ...] = tuple(transpose_spec(dims) for dims in (1, 2, 3))
