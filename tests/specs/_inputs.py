"""Inputs that the specs of several ops share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from neurokern.testing.spec import Draw, Maker, Sample
from torch import Tensor


def away(t: Tensor, points: tuple[float, ...], distance: float = 0.05) -> Tensor:
    """t, with the elements next to a point where the function has no derivative moved away from it."""
    for p in points:
        near = (t - p).abs() < distance
        t = torch.where(near, p + 2 * distance * torch.where(t >= p, 1.0, -1.0).to(t.dtype), t)
    return t


def drawn_input(make: Maker, draw: Draw, least: int = 0, even: int | None = None) -> Tensor:
    """A tensor of up to five dimensions (at least `least`), or a long vector, in one of four layouts."""
    if least <= 1 and even is None and draw.integer(0, 3) == 0:
        shape = [draw.integer(0, 3000)]
    else:
        shape = [draw.integer(0, 9) for _ in range(draw.integer(least, 5))]
    if even is not None and shape:
        shape[even] = 2 * shape[even]
    layout = draw.choice(("plain", "transposed", "every other", "shifted"))
    if layout == "transposed" and len(shape) > 1:
        return make(*shape[:-2], shape[-1], shape[-2], scale=3).mT
    if layout == "every other" and shape:
        return make(*shape[:-1], 2 * shape[-1], scale=3)[..., ::2]
    if layout == "shifted" and shape:
        return make(*shape[:-1], shape[-1] + 1, scale=3)[..., 1:]
    return make(*shape, scale=3)


def edges(make: Maker, points: tuple[float, ...]) -> Tensor:
    """Where answers are decided by definition: kinks and their neighbours, zeros, infinities, NaN, the dtype's ends."""
    info = torch.finfo(make.dtype)
    numbers = [
        0.0,
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        info.max,
        -info.max,
        info.tiny,
        -info.tiny,
        info.eps,
        -info.eps,
    ]
    for p in points:
        step = max(abs(p), 2**-20) * info.eps
        numbers += [p, p + step, p - step, -p]
    # an odd number of times over, so that each value meets the vector path and the remainder in every position
    return make.values(*(numbers * 5))


def elementwise_bytes(sample: Sample, tensors: int = 2) -> float:
    x = sample.args[0]
    return tensors * x.numel() * x.element_size()


class Called(torch.nn.Module):
    """A function as a layer, where torch.nn has none to compare with."""

    def __init__(self, f: Callable[..., Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, *args: Any) -> Tensor:
        return self.f(*args)
