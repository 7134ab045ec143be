"""conv1d to conv3d, and conv2d with its fused epilogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern import nn
from neurokern.functional.activation_name import parse_activation
from neurokern.ops.activation import TORCH
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample
from torch import Tensor

from ._convolutions import CONV_OPS, channels, drawn_images, ended, flops, last, moved, walk, weights
from ._exact import EXACT
from .activation import ROWS

TF = torch.nn.functional
KINKED = {r.act for r in ROWS if r.points(**r.variants[0])}  # without derivative at some point


def by_torch(
    face: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: Any = None,
    residual: Tensor | None = None,
    exact: bool = False,
) -> Tensor:
    """What torch has for it: the image padded first, as torch.nn's layers do, the rest behind the convolution."""
    if padding_mode != "zeros":
        dims = weight.dim() - 2
        if isinstance(padding, str):
            around = [0, 0] * dims
            for i, k in enumerate(reversed(weight.shape[2:])):
                d = dilation if isinstance(dilation, int) else dilation[-1 - i]
                around[2 * i] = d * (k - 1) // 2 * (padding == "same")
                around[2 * i + 1] = d * (k - 1) * (padding == "same") - around[2 * i]
        else:
            padding = [padding] * dims if isinstance(padding, int) else padding
            around = [p for p in reversed(padding) for _ in (0, 1)]
        x, padding = TF.pad(x, around, mode=padding_mode), 0
    y = getattr(TF, face)(x, weight, bias, stride, padding, dilation, groups)
    if activation is not None:
        act, p0, p1 = parse_activation(face, activation)
        y = EXACT[act](y) if exact and act in EXACT else TORCH[act](y, p0, p1)
    return y if residual is None else y + residual


# ---- conv ----


def conv1d_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("odd sizes", (make(3, 5, 31), weights(make, 7, 5, 3), make(7)), {"padding": 1}, chosen=True)
    yield Sample("without a batch or a bias", (make(4, 20), weights(make, 6, 4, 5)), {"stride": 2})
    yield Sample("stride and dilation", (make(2, 3, 40), weights(make, 4, 3, 4), make(4), 3, 2, 2))
    yield Sample("same, of an even window", (make(2, 3, 12), weights(make, 4, 3, 4), make(4)), {"padding": "same"})
    causal = {"padding": 6, "dilation": 3, "groups": 8}
    yield Sample("depthwise and dilated, as WaveNet's", (make(1, 8, 33), weights(make, 8, 1, 3), make(8)), causal)
    yield Sample("a strided image", (make(2, 24, 6).transpose(1, 2), weights(make, 5, 6, 3), make(10)[::2]))
    for mode in ("reflect", "replicate", "circular"):
        kw = {"padding": 2, "padding_mode": mode}
        yield Sample(f"padding mode {mode}", (make(2, 3, 11), weights(make, 4, 3, 5), make(4)), kw)
    yield Sample("no images", (make(0, 3, 8), weights(make, 4, 3, 3), make(4)))


def conv2d_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("odd sizes", (make(2, 5, 13, 11), weights(make, 7, 5, 3, 3), make(7), 1, 1), chosen=True)
    yield Sample("a first layer: 3 channels, stride 2", (make(1, 3, 21, 23), weights(make, 8, 3, 7, 7), None, 2, 3))
    yield Sample("a window of one pixel", (make(2, 12, 7, 6), weights(make, 17, 12, 1, 1), make(17)), chosen=True)
    yield Sample("one pixel at a stride", (make(2, 6, 9, 8), weights(make, 5, 6, 1, 1), None, 2), chosen=True)
    yield Sample("results of one pixel", (make(3, 4, 5, 3), weights(make, 6, 4, 5, 3), make(6)))
    yield Sample("an image of one pixel, and padding", (make(2, 4, 1, 1), weights(make, 6, 4, 3, 3), make(6), 1, 1))
    yield Sample("one channel in and out", (make(2, 1, 9, 7), weights(make, 1, 1, 3, 3), make(1)))
    numbers = ((2, 1), (0, 3), (1, 2))
    yield Sample("other numbers for each dim", (make(2, 3, 15, 14), weights(make, 4, 3, 2, 5), make(4), *numbers))
    yield Sample("dilated", (make(1, 3, 14, 13), weights(make, 4, 3, 3, 3), make(4), 1, 2, 2), chosen=True)
    yield Sample(
        "same, of even windows and dilation: one more behind",
        (make(1, 3, 9, 8), weights(make, 4, 3, 4, 2), make(4)),
        {"padding": "same", "dilation": (1, 3)},
    )
    yield Sample("two groups", (make(2, 6, 8, 9), weights(make, 10, 3, 3, 3), make(10), 1, 1, 1, 2), chosen=True)
    yield Sample("groups of 4 channels and 2 results", (make(1, 12, 6, 7), weights(make, 6, 4, 3, 3), None, 2, 1, 1, 3))
    yield Sample("depthwise", (make(2, 19, 9, 12), weights(make, 19, 1, 3, 3), make(19), 1, 1, 1, 19), chosen=True)
    yield Sample("depthwise at a stride", (make(1, 6, 12, 11), weights(make, 6, 1, 5, 5), make(6), 2, 2, 1, 6))
    yield Sample("depthwise with two results each", (make(1, 5, 8, 7), weights(make, 10, 1, 3, 3), None, 1, 1, 1, 5))
    yield Sample("without a batch", (make(3, 9, 8), weights(make, 4, 3, 3, 3), make(4), 1, 1))
    for mode in ("reflect", "replicate", "circular"):
        args = (make(2, 3, 7, 6), weights(make, 4, 3, 3, 5), make(4), (2, 1), (1, 3))
        yield Sample(f"padding mode {mode}", args, {"padding_mode": mode}, chosen=mode == "reflect")
    uneven = {"padding": "same", "padding_mode": "reflect"}
    yield Sample(
        "same and reflected", (make(1, 4, 6, 6), weights(make, 4, 2, 2, 4), make(4), 1), {**uneven, "groups": 2}
    )
    far = {"padding": 6, "padding_mode": "circular"}
    yield Sample("wrapped once around", (make(1, 2, 6, 6), weights(make, 3, 2, 3, 3), make(3)), far)
    yield Sample("channels last", (last(make(2, 6, 9, 7)), weights(make, 8, 6, 3, 3), make(8), 1, 1), chosen=True)
    yield Sample("channels last, one pixel of a window", (last(make(2, 16, 5, 6)), weights(make, 8, 16, 1, 1), make(8)))
    yield Sample("weight channels last", (make(2, 6, 9, 7), last(weights(make, 8, 6, 3, 3)), None, 2, 1))
    deep = (last(make(2, 18, 7, 8)), last(weights(make, 18, 1, 3, 3)), make(18), 1, 1, 1, 18)
    yield Sample("depthwise, all channels last", deep, chosen=True)
    sliced = make(3, 8, 20, 18)[1:, 1:7:2, ::2, 3:15]
    yield Sample("cut out of a larger tensor", (sliced, weights(make, 12, 3, 3, 3)[::2], make(12)[::2], 1, 1))
    turned = (make(7, 9, 4, 2).permute(3, 2, 1, 0), weights(make, 3, 3, 4, 5).permute(3, 2, 1, 0), make(5))
    yield Sample("every dim in another order", turned)
    expanded = (make(1, 1, 8, 7).expand(2, 3, 8, 7), weights(make, 1, 3, 3, 3).expand(4, 3, 3, 3), make(1).expand(4))
    yield Sample("one image for all, and one weight: stride 0", expanded)
    yield Sample("no images: gradients of zero", (make(0, 3, 8, 7), weights(make, 4, 3, 3, 3), make(4), 1, 1))
    yield Sample(
        "NaN and infinity reach their windows alone",
        (ended(make, 1, 2, 9, 9), weights(make, 3, 2, 3, 3), make(3), 1, 1),
    )
    yield Sample("more channels than a block", (make(1, 70, 6, 5), weights(make, 67, 70, 3, 3), make(67), 1, 1))
    yield Sample("more pixels than a block", (make(2, 3, 37, 41), weights(make, 5, 3, 3, 3), make(5), 1, 1), heavy=True)
    yield Sample(
        "blocks in every direction", (make(2, 66, 17, 19), weights(make, 70, 66, 3, 3), None, 1, 1), heavy=True
    )


def conv3d_samples(make: Maker) -> Iterator[Sample]:
    yield Sample("odd sizes", (make(2, 3, 5, 7, 6), weights(make, 5, 3, 3, 2, 3), make(5), 1, 1), chosen=True)
    yield Sample(
        "other numbers for each dim", (make(1, 2, 9, 8, 7), weights(make, 3, 2, 3, 2, 1), None, (1, 2, 3), (2, 1, 0))
    )
    yield Sample("dilated, same", (make(1, 2, 6, 5, 7), weights(make, 4, 2, 2, 3, 3), make(4), 1, "same", (2, 1, 2)))
    yield Sample("results one column wide", (make(1, 2, 6, 7, 3), weights(make, 4, 2, 3, 3, 3), make(4), (2, 2, 1)))
    yield Sample("depthwise", (make(1, 6, 4, 5, 6), weights(make, 6, 1, 3, 3, 3), make(6), 1, 1, 1, 6))
    yield Sample("channels last", (last(make(2, 4, 4, 5, 6)), weights(make, 3, 4, 2, 3, 3), make(3), 1, 1), chosen=True)
    for mode in ("reflect", "replicate", "circular"):
        args = (make(1, 2, 4, 5, 6), weights(make, 3, 2, 3, 3, 3), make(3), 1, (1, 2, 1))
        yield Sample(f"padding mode {mode}", args, {"padding_mode": mode})
    yield Sample("no images", (make(0, 2, 4, 4, 4), weights(make, 3, 2, 3, 3, 3), make(3)))


def conv_smooth(make: Maker, dims: int) -> Iterator[Sample]:
    size, window = [5, 4, 3][:dims], [2, 3, 2][:dims]
    image = make(2, 2, *size)
    yield Sample("stride, padding and dilation", (image, make(3, 2, *window), make(3), 2, 1, [1, 1, 2][:dims]))
    yield Sample(
        "groups, without a batch or a bias",
        (make(4, *size[:2], *[2] * (dims - 2)), make(2, 2, *[2] * dims), None, 1, 0, 1, 2),
    )
    if dims == 2:
        for mode in ("reflect", "replicate", "circular"):
            kw = {"padding": (1, 2), "padding_mode": mode}
            yield Sample(f"padding mode {mode}", (make(1, 2, 4, 4), make(2, 2, 2, 3), make(2)), kw)
        yield Sample("same, one more behind", (make(1, 1, 3, 4), make(2, 1, 2, 2), make(2)), {"padding": "same"})


def conv_bad(make: Maker, dims: int) -> Iterator[BadCall]:
    x, w, b = make(2, 4, *[6] * dims), make(6, 4, *[3] * dims), make(6)
    shape, kernel = f"{list(x.shape)}", f"{list(w.shape)}"
    yield BadCall("a list for a tensor", ([1.0], w, b), says=("input", "list"))
    yield BadCall("a list for a weight", (x, [1.0], b), says=("weight", "list"))
    yield BadCall("a number for a bias", (x, w, 1.0), says=("bias", "float"))
    yield BadCall("an image of too few dimensions", (x[0, 0], w, b), says=("input", str(list(x.shape[2:]))))
    yield BadCall("an image of too many dimensions", (x[None], w, b), says=("input", f"[1, {shape[1:]}"))
    yield BadCall("a weight of too few dimensions", (x, w[0], b), says=("weight", str(list(w.shape[1:]))))
    yield BadCall("a weight of too many dimensions", (x, w[None], b), says=("weight", f"[1, {kernel[1:]}"))
    yield BadCall("channels that don't fit", (x[:, :3], w, b), says=("input", "3 channels", "expected 4"))
    yield BadCall("channels that groups don't divide", (x, w[:5, :2], b[:5], 1, 0, 1, 2), says=("weight", "groups 2"))
    yield BadCall(
        "channels of all groups in the weight", (x, w, b, 1, 0, 1, 2), says=("input", "4 channels", "expected 8")
    )
    yield BadCall("a bias that doesn't fit", (x, w, b[:4]), says=("bias", "[4]", "expected [6]"))
    yield BadCall("a bias of two dimensions", (x, w, b[None]), says=("bias", "[1, 6]"))
    yield BadCall("a window larger than the image", (x[..., :2], w, b), says=("input", shape[:-2] + "2]", "window"))
    yield BadCall("a window without elements", (x, w[..., :0], b), says=("weight", kernel[:-2] + "0]"))
    yield BadCall("no results", (x, w[:0], b[:0]), says=("weight", "[0, "))
    yield BadCall("images without pixels", (x[..., :0], w, b, 1, 2), says=("input", shape[:-2] + "0]"))
    yield BadCall("a weight of another dtype", (x, w.double(), b), says=("weight", "float64"))
    yield BadCall("a bias of another dtype", (x, w, b.half()), says=("bias", "float16"))
    yield BadCall("a weight of integers", (x, w.long(), b), says=("int64",))
    for name in ("stride", "padding", "dilation"):
        yield BadCall(
            f"{name}: too many numbers", (x, w, b), {name: [1] * (dims + 1)}, (name, f"expected an int or {dims} ints")
        )
        yield BadCall(f"{name}: no numbers", (x, w, b), {name: []}, (name, "[]"))
        yield BadCall(f"{name}: half a number", (x, w, b), {name: 1.5}, (name, "1.5"))
        yield BadCall(f"{name}: half a number among them", (x, w, b), {name: [1.5] * dims}, (name,))
        yield BadCall(f"{name}: None", (x, w, b), {name: None}, (name, "None"))
        yield BadCall(f"{name}: a bool", (x, w, b), {name: True}, (name, "True"))
        yield BadCall(f"{name}: negative", (x, w, b), {name: -1}, (name, "-1"))
    yield BadCall("stride: 0", (x, w, b, 0), says=("stride", "[0"))
    yield BadCall("dilation: 0", (x, w, b), {"dilation": 0}, ("dilation", "[0"))
    yield BadCall("a misspelt padding", (x, w, b), {"padding": "smae"}, ("padding", "'smae'", "'same'"))
    yield BadCall("same, at a stride", (x, w, b, 2), {"padding": "same"}, ("padding", "'same'", "stride"))
    yield BadCall("groups: 0", (x, w, b), {"groups": 0}, ("groups", "0"))
    yield BadCall("groups: negative", (x, w, b), {"groups": -1}, ("groups", "-1"))
    yield BadCall("groups: half a number", (x, w, b), {"groups": 1.5}, ("groups", "1.5"))
    yield BadCall("groups: None", (x, w, b), {"groups": None}, ("groups", "None"))
    yield BadCall(
        "a misspelt padding mode", (x, w, b, 1, 1), {"padding_mode": "reflct"}, ("'reflct'", "reflect"), ValueError
    )
    yield BadCall("a misspelt padding mode, no padding", (x, w, b), {"padding_mode": "wrap"}, ("'wrap'",), ValueError)
    yield BadCall("a padding mode that is None", (x, w, b), {"padding_mode": None}, ("mode", "None"), TypeError)
    yield BadCall("reflected beyond the image", (x, w, b, 1, 6), {"padding_mode": "reflect"}, ("padding", "reflects"))
    yield BadCall("wrapped more than once", (x, w, b, 1, 7), {"padding_mode": "circular"}, ("padding", "wraps"))
    yield BadCall("a misspelt activation", (x, w, b), {"activation": "rleu"}, ("activation", "'rleu'"))
    yield BadCall("a residual that doesn't fit", (x, w, b), {"residual": make(3)}, ("residual", "[3]"))
    yield BadCall(
        "a residual of another dtype", (x, w, b), {"residual": make(1).half()}, ("residual", "float16"), RuntimeError
    )


def conv_drawn(make: Maker, draw: Draw, dims: int) -> Sample:
    pixels, window, stride, padding, dilation = walk(draw, dims)
    groups, c, o = channels(draw)
    x = drawn_images(make, draw, draw.integer(0, 3), groups * c, *pixels)
    weight = weights(make, groups * o, c, *window)
    bias = make(groups * o) if draw.integer(0, 1) else None
    mode = draw.choice(("zeros", "zeros", "replicate"))
    return Sample("drawn", (x, weight, bias, stride, padding, dilation, groups), {"padding_mode": mode})


def conv_bench(make: Maker, n: int, c: int, o: int, pixels: int, window: int, groups: int = 1) -> Sample:
    args = (make(n, c, pixels, pixels), weights(make, o, c // groups, window, window), make(o))
    return Sample(f"{n} x {c} x {pixels}^2, {o} of {window}^2", (*args, 1, window // 2, 1, groups))


def conv_spec(dims: int, samples: Callable[[Maker], Iterator[Sample]]) -> OpSpec:
    face, cls = f"conv{dims}d", f"Conv{dims}d"
    reference = partial(by_torch, face)

    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        made = [getattr(n, cls)(4, 6, 3, 2, 1, groups=2, padding_mode="replicate") for n in (nn, torch.nn)]
        return made[0], made[1], (make(2, 4, *[7, 6, 5][:dims]),)

    return OpSpec(
        name=face,
        family="convolution",
        op=getattr(F, face),
        torch=reference,
        samples=samples,
        smooth=partial(conv_smooth, dims=dims),
        drawn=partial(conv_drawn, dims=dims),
        bench=conv_bench if dims == 2 else None,
        flops=partial(flops, f=reference),
        bytes=partial(moved, f=reference),
        scale="absolute",
        registered=CONV_OPS,
        bad=partial(conv_bad, dims=dims),
        layer=layer,
    )


# ---- conv2d with its epilogue ----


def fused_samples(make: Maker, act: str) -> Iterator[Sample]:
    """On a grid, with biases between its points: no preactivation of a kinked function is rounded across a kink."""

    def case(
        why: str, x: tuple[int, ...], w: tuple[int, ...], residual: tuple[int, ...] | None, *numbers: Any, **more: Any
    ) -> Sample:
        if act in KINKED:
            image, weight, bias = make.grid(*x), make.grid(*w, limit=4), make.grid(w[0]) + 2.0**-7
        else:
            image, weight, bias = make(*x), make(*w, scale=1.5 / math.sqrt(math.prod(w[1:]))), make(w[0])
        for turned in more.pop("turned", ()):
            image, weight = (turned(image), weight)
        kw = {"activation": act, **more.pop("kw", {}), **({} if residual is None else {"residual": make(*residual)})}
        return Sample(why, (image, weight, bias.detach(), *numbers), kw, **more)

    yield case("odd sizes", (2, 3, 9, 7), (5, 3, 3, 3), None, 1, 1, chosen=True)
    yield case("one pixel of a window, with residual", (2, 7, 5, 6), (9, 7, 1, 1), (2, 9, 5, 6), chosen=True)
    yield case("depthwise, with a residual that broadcasts", (1, 6, 8, 7), (6, 1, 3, 3), (6, 1, 1), 2, 1, 1, 6)
    yield case("channels last, with residual", (2, 4, 6, 5), (8, 4, 3, 3), (2, 8, 6, 5), 1, 1, turned=(last,))
    yield case("a padding mode", (1, 3, 6, 5), (4, 3, 3, 3), None, 1, 1, kw={"padding_mode": "circular"})
    yield case("no images", (0, 3, 6, 5), (4, 3, 3, 3), None)


def fused_smooth(make: Maker, act: str) -> Iterator[Sample]:
    # sums of grid points shifted by 2**-4 of a step: never nearer to a kink than that
    x, w = make.grid(2, 2, 4, 3, step=0.5, limit=3), make.grid(3, 2, 2, 2, step=0.5, limit=3)
    kw = {"activation": act, "residual": make(2, 3, 3, 2)}
    yield Sample("bias and residual", (x, w, make.grid(3) + 2.0**-4), kw)


def fused_spec(act: str) -> OpSpec:
    def layer(make: Maker) -> tuple[torch.nn.Module, torch.nn.Module, tuple[Any, ...]]:
        args = (make(2, 4, 6, 5), make(2, 6, 6, 5))
        return nn.ConvActivation2d(4, 6, 3, padding=1, activation=act), ConvThen(act), args

    reference = partial(by_torch, "conv2d")
    return OpSpec(
        name="conv2d",
        variant=act,
        family="convolution",
        op=F.conv2d,
        torch=reference,
        exact=partial(by_torch, "conv2d", exact=True),
        samples=partial(fused_samples, act=act),
        smooth=partial(fused_smooth, act=act),
        flops=partial(flops, f=reference),
        bytes=partial(moved, f=reference),
        scale="nudge",
        registered=(
            *("convolution_activation", "convolution_activation_recorded", "convolution_activation_backward"),
            *(*CONV_OPS[2:], "unary_gradient", "unary_backward2"),
        ),
        act=act,
        layer=layer,
    )


class ConvThen(torch.nn.Conv2d):
    """torch's convolution with an activation and a residual after it."""

    def __init__(self, act: str) -> None:
        super().__init__(4, 6, 3, padding=1)
        self.act = act

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        kw = {"padding": 1, "activation": self.act, "residual": residual}
        return by_torch("conv2d", x, self.weight, self.bias, **kw)


SPECS: tuple[OpSpec, ...] = (
    conv_spec(1, conv1d_samples),
    conv_spec(2, conv2d_samples),
    conv_spec(3, conv3d_samples),
    *(fused_spec(act) for act in ("relu", "silu")),
)
