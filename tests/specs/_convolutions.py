"""What the specs of convolutions and of transposed ones share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from neurokern.testing.spec import Draw, Maker, Sample
from torch import Tensor

LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def weights(make: Maker, out: int, *rest: int) -> Tensor:
    """Of the size that keeps a sum's elements about 1."""
    return make(out, *rest, scale=1 / math.sqrt(max(math.prod(rest), 1)))


def last(t: Tensor) -> Tensor:
    """The same, channels last; of images without a batch, too."""
    dims = t.dim() if t.dim() > 3 else 4
    made = (t if t.dim() == dims else t.unsqueeze(0)).contiguous(memory_format=LAST[dims - 2])
    return made if t.dim() == dims else made.squeeze(0)


def ended(make: Maker, *shape: int) -> Tensor:
    """An image with a NaN and infinities in one place each."""
    x = make(*shape)
    flat = x.view(-1)
    flat[1], flat[flat.numel() // 2], flat[-2] = math.nan, math.inf, -math.inf
    return x


def walk(draw: Draw, dims: int) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Sizes of an image, window, stride, padding and dilation that go together."""
    window = [draw.integer(1, 4) for _ in range(dims)]
    stride, dilation = ([draw.integer(1, 3) for _ in range(dims)] for _ in range(2))
    padding = [draw.integer(0, 3) for _ in range(dims)]
    reach = [d * (k - 1) + 1 - 2 * p for k, p, d in zip(window, padding, dilation, strict=True)]
    pixels = [max(r, 1) + draw.integer(0, 9 if dims < 3 else 3) for r in reach]
    return pixels, window, stride, padding, dilation


def channels(draw: Draw) -> tuple[int, int, int]:
    """Groups, and the channels of each, in and out."""
    groups = draw.choice((1, 1, 2, draw.integer(3, 20)))
    most = 20 if groups < 3 else 3
    return groups, draw.integer(1, most), draw.integer(1, most)


def drawn_images(make: Maker, draw: Draw, *shape: int) -> Tensor:
    layout = draw.choice(("plain", "channels last", "every other"))
    if layout == "channels last" and len(shape) > 3:
        return last(make(*shape))
    return make(*shape[:-1], 2 * shape[-1])[..., ::2] if layout == "every other" else make(*shape)


def out_of(f: Callable[..., Tensor], sample: Sample) -> Tensor:
    """The result's shape, uncomputed."""
    moved = [a.to("meta") if isinstance(a, Tensor) else a for a in sample.args]
    return f(*moved, **{k: v.to("meta") if isinstance(v, Tensor) else v for k, v in sample.kwargs.items()})


def flops(sample: Sample, f: Callable[..., Tensor], transposed: bool = False) -> float:
    x, weight = sample.args[:2]
    pixels = x if transposed else out_of(f, sample)
    return 2.0 * pixels.numel() * weight[0].numel()


def moved(sample: Sample, f: Callable[..., Tensor]) -> float:
    """Bytes of the inputs read once and of the output written once."""
    tensors = [t for t in (*sample.args, *sample.kwargs.values()) if isinstance(t, Tensor)]
    return float(sum(t.numel() for t in tensors) + out_of(f, sample).numel()) * tensors[0].element_size()


CONV_OPS = tuple(
    f"{name}{backward}"
    for name in ("convolution", "convolution_transpose", "convolution_weight_gradient")
    for backward in ("", "_backward")
)
