"""Convolutions of ResNet-50, MobileNetV2, AlexNet, ConvNeXt and networks for 32 x 32 pixels."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import neurokern.functional as F
import torch
from neurokern.bench.cases import Case
from torch import Tensor

T = torch.nn.functional
BATCHES, GPU_BATCHES = (1, 8), (8, 64)


class Layer(NamedTuple):
    """A convolution: channels in and out, pixels and window in each direction."""

    channels: int
    out: int
    pixels: int
    window: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    dilation: int = 1

    @property
    def label(self) -> str:
        more = f" / {self.stride}" * (self.stride > 1) + f" dilated {self.dilation}" * (self.dilation > 1)
        return f"{self.channels} x {self.pixels}^2, {self.out} of {self.window}^2{more}"


RESNET = (
    Layer(3, 64, 224, 7, 2, 3),
    Layer(64, 64, 56, 3, 1, 1),
    Layer(256, 64, 56, 1),
    Layer(128, 512, 28, 1),
    Layer(256, 512, 56, 1, 2),
    Layer(128, 128, 28, 3, 1, 1),
    Layer(256, 256, 28, 3, 2, 1),
    Layer(256, 256, 14, 3, 1, 1),
    Layer(1024, 256, 14, 1),
    Layer(512, 512, 7, 3, 1, 1),
    Layer(512, 2048, 7, 1),
)
MOBILENET = (
    Layer(3, 32, 224, 3, 2, 1),
    Layer(16, 96, 112, 1),
    Layer(144, 24, 56, 1),
    Layer(384, 64, 14, 1),
    Layer(320, 1280, 7, 1),
)
ALEXNET = (Layer(3, 64, 224, 11, 4, 2), Layer(64, 192, 27, 5, 1, 2), Layer(192, 384, 13, 3, 1, 1))
CONVNEXT = (Layer(3, 96, 224, 4, 4), Layer(96, 192, 56, 2, 2))
SMALL = (Layer(3, 16, 32, 3, 1, 1), Layer(16, 32, 32, 3, 2, 1), Layer(64, 64, 8, 3, 1, 1), Layer(160, 160, 32, 3, 1, 1))
NETWORKS = {"ResNet-50": RESNET, "MobileNetV2": MOBILENET, "AlexNet": ALEXNET, "ConvNeXt": CONVNEXT, "32 x 32": SMALL}
DEPTHWISE = {
    "MobileNetV2": (
        Layer(32, 32, 112, 3, 1, 1, 32),
        Layer(144, 144, 56, 3, 2, 1, 144),
        Layer(384, 384, 14, 3, 1, 1, 384),
        Layer(960, 960, 7, 3, 1, 1, 960),
    ),
    "ConvNeXt": (Layer(96, 96, 56, 7, 1, 3, 96), Layer(384, 384, 14, 7, 1, 3, 384)),
}
DILATED = {"DeepLab": (Layer(512, 256, 28, 3, 1, 12, 1, 12), Layer(256, 256, 28, 3, 1, 2, 1, 2))}
UPSAMPLING = {"U-Net": (Layer(256, 128, 28, 2, 2), Layer(64, 64, 56, 4, 2, 1))}


def _call(function: Any, layer: Layer, last: bool, x: Tensor, *parameters: Tensor) -> Tensor:
    """The convolution; channels last, the arguments and the result are views of [N, H, W, C]."""
    y = function(x.permute(0, 3, 1, 2) if last else x, *parameters, layer=layer)
    return y.permute(0, 2, 3, 1) if last else y


def _conv(conv2d: Any, x: Tensor, w: Tensor, b: Tensor, *, layer: Layer, **more: Any) -> Tensor:
    return conv2d(x, w, b, layer.stride, layer.padding, layer.dilation, layer.groups, **more)


def _conv_relu(x: Tensor, w: Tensor, b: Tensor, *, layer: Layer) -> Tensor:
    return torch.relu(_conv(T.conv2d, x, w, b, layer=layer))


def _transpose(conv_transpose2d: Any, x: Tensor, w: Tensor, b: Tensor, *, layer: Layer) -> Tensor:
    return conv_transpose2d(x, w, b, layer.stride, layer.padding)


def _case(op: str, pair: Any, network: str, layer: Layer, batch: int, last: bool, dtype: str, grad: bool) -> Case:
    c, o, p, k = layer[:4]
    transposed = op == "conv_transpose2d"
    results = p if transposed else (p + 2 * layer.padding - layer.dilation * (k - 1) - 1) // layer.stride + 1
    terms = c // layer.groups * k * k
    weight = (c, o, k, k) if transposed else (o, c // layer.groups, k, k)
    label = f"{network}: {batch} x {layer.label}{', channels last' * last}"
    ours, theirs = (partial(_call, f, layer, last) for f in pair)
    shapes = ((batch, p, p, c) if last else (batch, c, p, p), weight, (o,))
    flops = 2.0 * batch * results**2 * o * terms
    return Case(op, label, dtype, ours, theirs, shapes, (1.0, terms**-0.5, 1.0), flops, grad=grad, reduces=True)


CONV = "conv2d", (partial(_conv, F.conv2d), partial(_conv, T.conv2d))
CONV_RELU = "conv2d+relu", (partial(_conv, F.conv2d, activation="relu"), _conv_relu)
TRANSPOSE = "conv_transpose2d", (partial(_transpose, F.conv_transpose2d), partial(_transpose, T.conv_transpose2d))


def _cases(
    kind: Any,
    networks: dict[str, tuple[Layer, ...]],
    dtypes: tuple[str, ...],
    grads: tuple[bool, ...],
    device: str,
    quick: bool,
) -> list[Case]:
    """Every layer in both layouts, of one image and of several; quick: every third, each in one layout and batch."""
    layers = [(name, layer) for name, layers in networks.items() for layer in layers]
    batches = GPU_BATCHES if device == "cuda" else BATCHES
    if quick:
        layers = layers[:: -(-len(layers) // 6)]
    return [
        _case(*kind, name, layer, batch, last, dtype, grad)
        for grad in grads
        for dtype in dtypes
        for i, (name, layer) in enumerate(layers)
        for batch in batches
        for last in (False, True)
        if not quick or (batch == batches[i % 2] and last == (i // 2 % 2 == 1))
    ]


def convolutions(dtype: str, grad: bool, device: str, quick: bool) -> list[Case]:
    """The layers of five networks, without depthwise ones."""
    networks = NETWORKS
    if grad or dtype == "f16":  # torch's float16 takes long on a CPU
        networks = {name: layers[::2] for name, layers in NETWORKS.items()}
    return _cases(CONV, networks, (dtype,), (grad,), device, quick)


def fused(device: str, quick: bool) -> list[Case]:
    """Bias and ReLU in the epilogue against torch's two ops."""
    networks = {name: layers[1::2] for name, layers in NETWORKS.items()}
    return _cases(CONV_RELU, networks, ("f32", "bf16"), (False,), device, quick)


def depthwise(device: str, quick: bool) -> list[Case]:
    """One channel to a group."""
    return _cases(CONV, DEPTHWISE, ("f32", "bf16"), (False, True), device, quick)


def dilated(device: str, quick: bool) -> list[Case]:
    """Windows with holes, in bf16."""
    return _cases(CONV, DILATED, ("bf16",), (False, True), device, quick)


def transposed(device: str, quick: bool) -> list[Case]:
    """Upsampling."""
    return _cases(TRANSPOSE, UPSAMPLING, ("f32", "bf16"), (False, True), device, quick)


def tiny(device: str, quick: bool) -> list[Case]:
    """What a call costs before its kernel does anything: a window of 3 x 3 pixels, without a gradient."""
    layer = Layer(4, 4, 5, 3)
    return [_case(*kind, "tiny", layer, 1, False, "f32", False) for kind in (CONV, TRANSPOSE)]
