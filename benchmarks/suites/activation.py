"""Suites of the activations."""

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


def case(op: str, pair: tuple[Any, Any], label: str, dtype: str, grad: bool, *shapes: tuple[int, ...]) -> Case:
    return Case(op, label, dtype, *pair, shapes, (2.0,) * len(shapes), grad=grad)


def elementwise(grad: bool, device: str, quick: bool) -> list[Case]:
    """Every activation, PReLU and the gated units."""
    sizes = GPU_SIZES if device == "cuda" else SIZES
    if quick:
        sizes = {k: v for k, v in sizes.items() if k in ("256 Ki", "4 Mi", "64 Mi")}
    cases = []
    for dtype in DTYPES:
        for label, n in sizes.items():
            cases += [case(op, pair, label, dtype, grad, (n,)) for op, pair in UNARY.items()]
            # in rows of 1024, as the last dimension of a network's hidden layer
            cases += [case(op, pair, label, dtype, grad, (n // 1024, 1024)) for op, pair in GATED.items()]
            cases.append(case("prelu", (F.prelu, T.prelu), label, dtype, grad, (n // 1024, 1024), (1024,)))
    return cases


# attention rows, a classifier, a vocabulary, a strided dimension
def tiny(device: str, quick: bool) -> list[Case]:
    """What a call costs before its kernel does anything: every activation on 64 elements, without a gradient."""
    cases = [case(op, pair, "64", "f32", False, (64,)) for op, pair in UNARY.items()]
    cases.append(case("glu", GATED["glu"], "2 x 64", "f32", False, (2, 64)))
    prelu = (F.prelu, T.prelu)
    cases.append(case("prelu", prelu, "64", "f32", False, (64,), (1,)))
    cases.append(case("prelu", prelu, "8 x 8", "f32", False, (8, 8), (8,)))
    return cases
