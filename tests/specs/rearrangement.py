"""Padding, shuffles of pixels and channels, sliding windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern import nn
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample
from torch import Tensor

from ._inputs import elementwise_bytes

TF = torch.nn.functional


def last(t: Tensor) -> Tensor:
    return t.to(memory_format=torch.channels_last if t.dim() == 4 else torch.channels_last_3d)


def with_ends(t: Tensor) -> Tensor:
    t.view(-1)[:3] = t.new_tensor([math.nan, math.inf, -math.inf])
    return t


# ---- padding ----


def pad_samples(make: Maker, mode: str) -> Iterator[Sample]:
    def sample(why: str, x: Tensor, pad: tuple[int, ...], **more: bool) -> Sample:
        return Sample(why, (x, pad, mode), **more)

    yield sample("images, by more on one side", make(2, 3, 7, 9), (1, 2, 3, 0), chosen=True)
    yield sample("channels last", last(make(2, 5, 6, 7)), (1, 1, 2, 2), chosen=True)
    yield sample("channels last, more of them than a vector holds", last(make(1, 37, 4, 5)), (2, 1, 0, 1))
    yield sample("rows", make(3, 5, 19), (3, 1), chosen=True)
    yield sample("rows of no batch", make(5, 19), (2, 0))
    yield sample("volumes", make(2, 2, 4, 3, 5), (1, 2, 1, 1, 2, 1), chosen=True)
    yield sample("volumes, channels last", last(make(2, 3, 4, 3, 5)), (1, 0, 1, 1, 0, 2))
    yield sample("volumes of no batch, taken for images that are channels last", last(make(3, 4, 5, 6)), (1,) * 6)
    yield sample("cropped", make(2, 3, 7, 9), (-1, -2, 0, -3))
    yield sample("cropped on one side, padded on the other", make(2, 3, 7, 9), (-2, 3, 2, -1), chosen=True)
    yield sample("padded along one of two dims", make(2, 3, 6, 5), (0, 0, 2, 1))
    yield sample("by nothing", make(2, 3, 4, 5), (0, 0, 0, 0))
    yield sample("by as much as may be", make(2, 3, 4, 5), (4, 4, 3, 3))
    yield sample("transposed", make(2, 6, 5, 3).permute(0, 3, 2, 1), (1, 2, 2, 1))
    yield sample("every other element", make(2, 3, 5, 12)[..., ::2], (1, 2, 1, 0))
    yield sample("every other channel of what is channels last", last(make(2, 8, 4, 5))[:, ::2], (1, 1, 1, 1))
    yield sample("one element for all", make(1, 1, 1, 1).expand(2, 3, 4, 5), (1, 1, 1, 1))
    yield sample("no images", make(0, 3, 4, 5), (1, 1, 1, 1))
    yield sample("NaN and infinities", with_ends(make(1, 2, 3, 4)), (1, 2, 1, 1))
    yield sample("images for every thread", make(8, 16, 40, 44), (3, 3, 3, 3), heavy=True)
    if mode != "constant":
        return
    yield Sample("a value", (make(2, 3, 4), (1, 2), "constant", 1.3), chosen=True)
    yield Sample("infinity for a value", (make(2, 3, 4), (1, 2, 0, 1), "constant", -math.inf))
    yield Sample("every dim", (make(2, 3, 4, 2, 3), (1, 0, 2, 1, 0, 1, 1, 1, 3, 0)))
    yield Sample("some dims, with a filled one between others", (make(2, 3, 4, 2), (0, 1, 0, 0, 2, 0)))
    yield Sample("a vector", (make(17), (3, 4)))
    yield Sample("more than there is", (make(3, 4), (9, 11)))
    yield Sample("from nothing to something", (make(2, 0, 3), (1, 1, 2, 1)))
    yield Sample("cropped to nothing", (make(2, 3, 4), (-1, -3)))
    yield Sample("cropped, of a transposed tensor, whose order stays", (make(4, 5, 6).permute(2, 0, 1), (-1, 0, 0, -1)))
    yield Sample("a number", (make(), ()))
    yield Sample("seven dims, permuted", (make(2, 1, 2, 3, 1, 2, 2).permute(0, 6, 2, 4, 5, 3, 1), (1, 0, 0, 1)))


def pad_smooth(make: Maker, mode: str) -> Iterator[Sample]:
    yield Sample("rows", (make(2, 5), (2, 1), mode))
    yield Sample("images", (make(1, 2, 3, 4), (1, 2, -1, 1), mode))


def pad_drawn(make: Maker, draw: Draw, mode: str) -> Sample:
    dims = draw.integer(1, 3)
    sizes = [draw.integer(2, 7) for _ in range(dims)]
    most = 3 if mode == "constant" else 1
    pad = [draw.integer(-1 if n > 2 else 0, min(most, n - 1)) for n in reversed(sizes) for _ in range(2)]
    x = make(draw.integer(1, 3), draw.integer(1, 20), *sizes)
    if dims > 1 and draw.integer(0, 1):
        x = last(x)
    return Sample("drawn", (x, pad, mode))


def pad_bad(make: Maker, mode: str) -> Iterator[BadCall]:
    yield BadCall("a list for a tensor", ([1.0, 2.0], (1, 1), mode), says=("input", "list"))
    yield BadCall("an odd count of numbers", (make(2, 3, 4), (1, 2, 3), mode), says=("pad", "[1, 2, 3]"))
    yield BadCall("more numbers than dims", (make(2, 3), (1,) * 6, mode), says=("pad", "[2, 3]"))
    yield BadCall("a float for a number", (make(2, 3, 4), (1.0, 1), mode), says=("pad",))
    yield BadCall("a number for a sequence", (make(2, 3, 4), 1, mode), says=("pad",))
    yield BadCall("no such mode", (make(2, 3, 4), (1, 1), "mirror"), says=("mode", "mirror"))
    yield BadCall("more cropped than there is", (make(2, 3, 4), (-3, -2), mode), says=("pad", "-3"))
    if mode == "constant":
        yield BadCall("a word for a value", (make(2, 3, 4), (1, 1), mode, "one"), says=("value",))
        half = make(2, 3, 4).half()
        yield BadCall("a value that the dtype does not hold", (half, (1, 1), mode, 1e6), says=("value", "float16"))
        return
    yield BadCall("a value", (make(2, 3, 4), (1, 1), mode, 2.0), says=("value", mode))
    yield BadCall("more dims than two beside those padded", (make(2, 3, 4, 5), (1, 1), mode), says=("[2, 3, 4, 5]",))
    yield BadCall("all dims", (make(3, 4), (1, 1, 1, 1), mode), says=("[3, 4]",))
    if mode != "replicate":
        yield BadCall("more than the dim has", (make(2, 3, 4), (5, 0), mode), says=("pad", "5", "[2, 3, 4]"))
    if mode != "circular":
        yield BadCall("an empty dim", (make(2, 0, 4), (1, 1), mode), says=("[2, 0, 4]",))
        yield BadCall("nothing remains", (make(2, 3, 4), (-2, -2), mode), says=("pad", "-2"))


PAD_LAYERS = {"constant": "ZeroPad2d", "reflect": "ReflectionPad2d", "replicate": "ReplicationPad2d"}


def pad_spec(mode: str) -> OpSpec:
    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        name = PAD_LAYERS.get(mode, "CircularPad2d")
        return getattr(nn, name)((1, 2, 0, 3)), getattr(torch.nn, name)((1, 2, 0, 3)), (make(2, 3, 5, 7),)

    return OpSpec(
        name="pad",
        variant=mode,
        family="rearrangement",
        op=F.pad,
        torch=TF.pad,
        samples=partial(pad_samples, mode=mode),
        smooth=partial(pad_smooth, mode=mode),
        drawn=partial(pad_drawn, mode=mode),
        scale="absolute",
        bench=lambda make, *shape: Sample("by 1", (make(*shape), (1, 1, 1, 1), mode)),
        bytes=elementwise_bytes,
        registered=("pad", "pad_backward", "pad_gradient", "pad_gradient_backward"),
        bad=partial(pad_bad, mode=mode),
        layer=layer,
    )


# ---- shuffles ----


def whole_or_empty(f: Callable[..., Tensor], x: Tensor, factor: int) -> Tensor:
    """torch's pixel_unshuffle leaves an empty tensor in the shape that it had."""
    if x.numel():
        return f(x, factor)
    *batch, c, h, w = x.shape
    if f is TF.pixel_shuffle:
        return x.reshape(*batch, c // (factor * factor), h * factor, w * factor)
    return x.reshape(*batch, c * factor * factor, h // factor, w // factor) if f is TF.pixel_unshuffle else x.clone()


def shuffle_samples(make: Maker, name: str) -> Iterator[Sample]:
    """Of inputs that divide into all factors: [..., 36, 4 or more, 6 or more]."""
    for factor, why in ((2, "by two"), (1, "by one, which moves nothing"), (3, "by three, not in vectors")):
        height, width = (6, 21) if factor == 3 else (4, 22)
        yield Sample(why, (make(2, 36, height, width), factor), chosen=factor == 2)
        yield Sample(f"{why}, channels last", (last(make(2, 36, height, width)), factor), chosen=factor == 2)
    most = 12 if name == "channel_shuffle" else 6
    yield Sample("by more than are turned together", (make(1, 36, 12, 12), most))
    yield Sample("by more, channels last", (last(make(1, 36, 12, 12)), most))
    if name == "channel_shuffle":
        yield Sample("many groups of many channels, channels last", (last(make(1, 24 * 20, 3, 2)), 20))
        yield Sample("rows", (make(3, 8, 5), 4))
        yield Sample("volumes, channels last", (last(make(2, 8, 2, 3, 4)), 4))
    else:
        yield Sample("no batch", (make(4, 6, 8), 2))
        yield Sample("more dims in front", (make(2, 1, 3, 4, 6, 4), 2))
    yield Sample("wide enough for several vectors", (make(1, 4, 2, 70), 2))
    yield Sample("four, by vectors", (make(1, 32, 8, 48), 4))
    yield Sample("four, channels last", (last(make(1, 16 * 37, 4, 8)), 4))
    yield Sample("transposed", (make(2, 6, 8, 4).permute(0, 3, 2, 1), 2))
    yield Sample("every other element", (make(2, 4, 6, 16)[..., ::2], 2))
    yield Sample("one image for all", (make(1, 4, 6, 4).expand(3, 4, 6, 4), 2))
    yield Sample("NaN and infinities", (with_ends(make(1, 4, 2, 2)), 2))
    yield Sample("no images", (make(0, 4, 6, 4), 2))
    yield Sample("images of no rows", (make(2, 4, 0, 4), 2))
    yield Sample("images for every thread", (make(8, 64, 24, 24), 4), heavy=True)


def shuffle_smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("by two", (make(2, 4, 2, 4), 2))


def shuffle_drawn(make: Maker, draw: Draw) -> Sample:
    factor = draw.integer(1, 4)
    each = factor * factor
    x = make(draw.integer(1, 2), each * draw.integer(1, 5), factor * draw.integer(1, 3), factor * draw.integer(1, 20))
    return Sample("drawn", (last(x) if draw.integer(0, 1) else x, factor))


def shuffle_bad(make: Maker, name: str) -> Iterator[BadCall]:
    factor = {"pixel_shuffle": "upscale_factor", "pixel_unshuffle": "downscale_factor", "channel_shuffle": "groups"}[
        name
    ]
    yield BadCall("a list for a tensor", ([1.0, 2.0], 2), says=("input", "list"))
    yield BadCall("two dims", (make(4, 4), 2), says=("[4, 4]", "3"))
    yield BadCall("what is no multiple", (make(1, 5, 7, 7), 3), says=("[1, 5, 7, 7]", factor))
    yield BadCall("a factor of 0", (make(1, 4, 4, 4), 0), says=(factor, "0"))
    yield BadCall("a negative factor", (make(1, 4, 4, 4), -2), says=(factor, "-2"))
    yield BadCall("a float for a factor", (make(1, 4, 4, 4), 2.0), says=(factor, "2.0"))


def shuffle_spec(name: str, reference: Callable[..., Tensor], cls: str) -> OpSpec:
    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        return getattr(nn, cls)(2), getattr(torch.nn, cls)(2), (make(2, 8, 4, 6),)

    other = {"pixel_shuffle": "pixel_unshuffle", "pixel_unshuffle": "pixel_shuffle"}.get(name, name)
    return OpSpec(
        name=name,
        family="rearrangement",
        op=getattr(F, name),
        torch=partial(whole_or_empty, reference),
        samples=partial(shuffle_samples, name=name),
        smooth=shuffle_smooth,
        drawn=shuffle_drawn,
        bench=lambda make, *shape: Sample("by 2", (make(*shape), 2)),
        bytes=elementwise_bytes,
        registered=tuple(dict.fromkeys((name, f"{name}_backward", other, f"{other}_backward"))),
        bad=partial(shuffle_bad, name=name),
        layer=layer,
    )


# ---- windows ----

WINDOWS: dict[str, dict[str, Any]] = {
    "of 3 by 3": {"kernel_size": 3},
    "with padding": {"kernel_size": 3, "padding": 1},
    "by strides": {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 2)},
    "dilated": {"kernel_size": 2, "dilation": (3, 2), "padding": 1},
    "mostly in the padding": {"kernel_size": 3, "padding": 4, "dilation": 2, "stride": (1, 3)},
    "of one pixel": {"kernel_size": 1},
    "of the whole image": {"kernel_size": (7, 9)},
    "in patches": {"kernel_size": (3, 4), "stride": (3, 4)},
}


def columns(make: Maker, shape: tuple[int, ...], window: dict[str, Any]) -> Tensor:
    return make(*TF.unfold(torch.empty(shape), **window).shape)


def unfold_samples(make: Maker) -> Iterator[Sample]:
    for why, window in WINDOWS.items():
        yield Sample(f"a window {why}", (make(2, 3, 7, 9),), window, chosen=why in ("with padding", "by strides"))
    padded = WINDOWS["with padding"]
    yield Sample("no batch", (make(3, 7, 9),), padded)
    yield Sample("channels last", (last(make(2, 20, 5, 6)),), padded, chosen=True)
    yield Sample("transposed", (make(2, 6, 5, 3).permute(0, 3, 2, 1),), padded)
    yield Sample("every other row", (make(2, 3, 10, 6)[:, :, ::2],), padded)
    yield Sample("one image for all", (make(1, 3, 5, 4).expand(2, 3, 5, 4),), padded)
    yield Sample("no images", (make(0, 3, 5, 4),), padded)
    yield Sample("NaN and infinities", (with_ends(make(1, 2, 4, 4)),), padded)
    yield Sample("rows of several vectors", (make(1, 2, 3, 70),), padded)
    yield Sample("images for every thread", (make(4, 16, 28, 28),), padded, heavy=True)


def fold_samples(make: Maker) -> Iterator[Sample]:
    def sample(why: str, shape: tuple[int, ...], window: dict[str, Any], **more: bool) -> Sample:
        return Sample(why, (columns(make, shape, window), shape[-2:]), window, **more)

    for why, window in WINDOWS.items():
        chosen = why in ("with padding", "by strides")
        yield sample(f"a window {why}", (2, 3, 7, 9), window, chosen=chosen)
    padded = WINDOWS["with padding"]
    yield sample("no batch", (3, 7, 9), padded)
    yield sample("rows of several vectors", (1, 2, 3, 70), padded)
    yield sample("images for every thread", (4, 16, 28, 28), padded, heavy=True)
    yield Sample("a number for the size", (columns(make, (1, 2, 5, 5), padded), 5), padded)
    turned = columns(make, (2, 20, 5, 6), padded).transpose(1, 2).contiguous().transpose(1, 2)
    yield Sample("columns that are contiguous", (turned, (5, 6)), padded, chosen=True)
    yield Sample("one column for all", (make(2, 18, 1).expand(2, 18, 30), (5, 6)), padded)
    yield Sample("no images", (columns(make, (0, 3, 5, 4), padded), (5, 4)), padded)
    yield Sample("NaN and infinities", (with_ends(columns(make, (1, 2, 4, 4), padded)), (4, 4)), padded)


def window_smooth(make: Maker, folds: bool) -> Iterator[Sample]:
    window = {"kernel_size": 2, "padding": 1, "stride": (1, 2)}
    shape = (2, 2, 3, 4)
    yield Sample("a window", (columns(make, shape, window), shape[-2:]) if folds else (make(*shape),), window)


def window_drawn(make: Maker, draw: Draw, folds: bool) -> Sample:
    kernel = [draw.integer(1, 3) for _ in range(2)]
    dilation, padding = ([draw.integer(low, 2) for _ in range(2)] for low in (1, 0))
    window = {"kernel_size": kernel, "dilation": dilation, "padding": padding}
    window["stride"] = [draw.integer(1, 3) for _ in range(2)]
    shape = (draw.integer(1, 2), draw.integer(1, 18), draw.integer(5, 9), draw.integer(5, 40))
    if folds:
        return Sample("drawn", (columns(make, shape, window), shape[-2:]), window)
    x = make(*shape)
    return Sample("drawn", (last(x) if draw.integer(0, 1) else x,), window)


def unfold_bad(make: Maker) -> Iterator[BadCall]:
    x = make(1, 2, 5, 6)
    yield BadCall("a list for a tensor", ([1.0, 2.0], 2), says=("input", "list"))
    yield BadCall("two dims", (make(5, 6), 3), says=("[5, 6]",))
    yield BadCall("five dims", (make(1, 1, 2, 5, 6), 3), says=("[1, 1, 2, 5, 6]",))
    yield BadCall("no channels", (make(2, 0, 5, 6), 3), says=("[2, 0, 5, 6]",))
    yield BadCall("a window larger than the image", (x, 7), says=("[1, 2, 5, 6]", "[7, 7]"))
    yield BadCall("a window of nothing", (x, 0), says=("kernel_size",))
    yield BadCall("three sizes", (x, (2, 2, 2)), says=("kernel_size",))
    yield BadCall("a float for a size", (x, 2.0), says=("kernel_size",))
    yield BadCall("no stride", (x, 2), {"stride": 0}, says=("stride",))
    yield BadCall("no dilation", (x, 2), {"dilation": (1, 0)}, says=("dilation",))
    yield BadCall("a negative padding", (x, 2), {"padding": -1}, says=("padding",))


def fold_bad(make: Maker) -> Iterator[BadCall]:
    x = make(1, 8, 20)
    yield BadCall("a list for a tensor", ([1.0, 2.0], 2, 2), says=("input", "list"))
    yield BadCall("one dim", (make(20), (5, 6), 2), says=("[20]",))
    yield BadCall("no rows", (make(2, 0, 20), (5, 6), 2), says=("[2, 0, 20]",))
    yield BadCall("rows that are no multiple", (x, (5, 6), 3), says=("[1, 8, 20]", "[3, 3]"))
    yield BadCall("another number of columns", (x, (5, 7), 2), says=("[1, 8, 20]", "24"))
    yield BadCall("three sizes", (x, (5, 6, 1), 2), says=("output_size",))
    yield BadCall("a float for a size", (x, (5.0, 6), 2), says=("output_size",))
    yield BadCall("a window of nothing", (x, (5, 6), 0), says=("kernel_size",))
    yield BadCall("no stride", (x, (5, 6), 2), {"stride": 0}, says=("stride",))


def window_layer(folds: bool, make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
    # of two terms at most: torch rounds after each
    window = {"kernel_size": 2, "stride": (1, 2), "padding": (0, 1)}
    if folds:
        return nn.Fold((5, 6), **window), torch.nn.Fold((5, 6), **window), (columns(make, (2, 3, 5, 6), window),)
    return nn.Unfold(**window), torch.nn.Unfold(**window), (make(2, 3, 5, 6),)


def window_spec(name: str, reference: Callable[..., Tensor]) -> OpSpec:
    folds = name == "fold"

    def bench(make: Maker, *shape: int) -> Sample:
        window = WINDOWS["with padding"]
        return Sample("3 by 3", (columns(make, shape, window), shape[-2:]) if folds else (make(*shape),), window)

    return OpSpec(
        name=name,
        family="rearrangement",
        op=getattr(F, name),
        torch=reference,
        samples=fold_samples if folds else unfold_samples,
        smooth=partial(window_smooth, folds=folds),
        drawn=partial(window_drawn, folds=folds),
        scale="absolute",
        bench=bench,
        bytes=elementwise_bytes,
        registered=("unfold", "unfold_backward", "fold", "fold_backward"),
        bad=fold_bad if folds else unfold_bad,
        layer=partial(window_layer, folds),
    )


SPECS: tuple[OpSpec, ...] = (
    *(pad_spec(mode) for mode in ("constant", "reflect", "replicate", "circular")),
    shuffle_spec("pixel_shuffle", TF.pixel_shuffle, "PixelShuffle"),
    shuffle_spec("pixel_unshuffle", TF.pixel_unshuffle, "PixelUnshuffle"),
    shuffle_spec("channel_shuffle", TF.channel_shuffle, "ChannelShuffle"),
    window_spec("unfold", TF.unfold),
    window_spec("fold", TF.fold),
)
