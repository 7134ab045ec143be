"""Suites of the softmax family."""

from __future__ import annotations

from functools import partial

import torch
from neurokern import functional as F
from neurokern.bench.cases import Case

from .activation import DTYPES, case

T = torch.nn.functional
NAMES = ("softmax", "log_softmax", "softmin")

SOFTMAX_SHAPES = {
    "4096 x 1024": ((4096, 1024), -1),
    "48 x 197 x 197": ((48, 197, 197), -1),
    "1024 x 10": ((1024, 10), -1),
    "64 x 50257": ((64, 50257), -1),
    "8 x 21 x 64 x 64, dim 1": ((8, 21, 64, 64), 1),
    "32 x 1000 x 7, dim 1": ((32, 1000, 7), 1),
}


def softmaxes(device: str, quick: bool) -> list[Case]:
    """softmax, log_softmax and softmin, without and with the gradient."""
    shapes = list(SOFTMAX_SHAPES.items())
    return [
        case(name, (partial(getattr(F, name), dim=dim), partial(getattr(T, name), dim=dim)), label, dtype, grad, shape)
        for dtype in DTYPES
        for grad in (False, True)
        for label, (shape, dim) in (shapes[::4] if quick else shapes)
        for name in NAMES
    ]


def tiny(device: str, quick: bool) -> list[Case]:
    """Rows of eight elements, without a gradient."""
    pairs = {name: (partial(getattr(F, name), dim=-1), partial(getattr(T, name), dim=-1)) for name in NAMES}
    return [case(name, pair, "8 x 8", "f32", False, (8, 8)) for name, pair in pairs.items()]
