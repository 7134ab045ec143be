"""Suites of the activations and the softmax family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from neurokern import functional as F
from neurokern.bench.cases import Case
from torch import Tensor

T = torch.nn.functional
KI, MI = 1 << 10, 1 << 20

# name -> (ours, torch's); the gated units that torch lacks stand against what a user writes without them
UNARY: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    name: (getattr(F, name), getattr(T, name))
    for name in (
        "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "logsigmoid",
        "hardsigmoid", "hardswish", "hardtanh", "hardshrink", "softshrink", "tanhshrink", "softsign", "softplus",
        "tanh",
    )
}  # fmt: skip
UNARY["sigmoid"] = (F.sigmoid, torch.sigmoid)
UNARY["tanh"] = (F.tanh, torch.tanh)
UNARY["gelu tanh"] = (partial(F.gelu, approximate="tanh"), partial(T.gelu, approximate="tanh"))
UNARY["threshold"] = (partial(F.threshold, threshold=0.1, value=2.0), partial(T.threshold, threshold=0.1, value=2.0))
UNARY["squared relu"] = (F.squared_relu, lambda x: torch.relu(x).square())


def _halves(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def gated(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return act(a) * b

    return gated


GATED = {
    "glu": (F.glu, T.glu),
    "swiglu": (F.swiglu, _halves(T.silu)),
    "geglu": (F.geglu, _halves(T.gelu)),
    "reglu": (F.reglu, _halves(torch.relu)),
}
SIZES = {"32 Ki": 32 * KI, "256 Ki": 256 * KI, "1 Mi": MI, "4 Mi": 4 * MI}
GPU_SIZES = {"1 Mi": MI, "64 Mi": 64 * MI}
DTYPES = ("f32", "bf16", "f16")


def _case(op: str, pair: tuple[Any, Any], label: str, dtype: str, grad: bool, *shapes: tuple[int, ...]) -> Case:
    return Case(op, label, dtype, *pair, shapes, (2.0,) * len(shapes), grad=grad)


def elementwise(grad: bool, device: str, quick: bool) -> list[Case]:
    """Every activation, PReLU and the gated units."""
    sizes = GPU_SIZES if device == "cuda" else SIZES
    if quick:
        sizes = {k: v for k, v in sizes.items() if k in ("256 Ki", "4 Mi", "64 Mi")}
    cases = []
    for dtype in DTYPES:
        for label, n in sizes.items():
            cases += [_case(op, pair, label, dtype, grad, (n,)) for op, pair in UNARY.items()]
            # in rows of 1024, as the last dimension of a network's hidden layer
            cases += [_case(op, pair, label, dtype, grad, (n // 1024, 1024)) for op, pair in GATED.items()]
            cases.append(_case("prelu", (F.prelu, T.prelu), label, dtype, grad, (n // 1024, 1024), (1024,)))
    return cases


# attention rows, a classifier, a vocabulary, a strided dimension
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
        _case(name, (partial(getattr(F, name), dim=dim), partial(getattr(T, name), dim=dim)), label, dtype, grad, shape)
        for dtype in DTYPES
        for grad in (False, True)
        for label, (shape, dim) in (shapes[::4] if quick else shapes)
        for name in ("softmax", "log_softmax", "softmin")
    ]


def tiny(device: str, quick: bool) -> list[Case]:
    """What a call costs before its kernel does anything: every activation on 64 elements, without a gradient."""
    cases = [_case(op, pair, "64", "f32", False, (64,)) for op, pair in UNARY.items()]
    cases.append(_case("glu", GATED["glu"], "2 x 64", "f32", False, (2, 64)))
    prelu = (F.prelu, T.prelu)
    cases.append(_case("prelu", prelu, "64", "f32", False, (64,), (1,)))
    cases.append(_case("prelu", prelu, "8 x 8", "f32", False, (8, 8), (8,)))
    for name in ("softmax", "log_softmax", "softmin"):
        pair = (partial(getattr(F, name), dim=-1), partial(getattr(T, name), dim=-1))
        cases.append(_case(name, pair, "8 x 8", "f32", False, (8, 8)))
    return cases
