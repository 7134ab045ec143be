"""torch.nn on our kernels: layers of the same names, arguments and state_dict; every other name is torch.nn's own."""

from __future__ import annotations

from typing import Any

import torch as _torch

from .. import functional
from .activation import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    GeGLU,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReGLU,
    ReLU,
    ReLU6,
    RReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softmax2d,
    Softmin,
    Softplus,
    Softshrink,
    Softsign,
    SquaredReLU,
    SwiGLU,
    Tanh,
    Tanhshrink,
    Threshold,
)
from .linear import Bilinear, LazyLinear, Linear, LinearActivation

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "NATIVE",
    "SELU",
    "Bilinear",
    "GeGLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LazyLinear",
    "LeakyReLU",
    "Linear",
    "LinearActivation",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReGLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "SquaredReLU",
    "SwiGLU",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "functional",
]

#: names of the classes that run on our kernels
NATIVE: frozenset[str] = frozenset(__all__) - {"NATIVE", "functional"}


def __getattr__(name: str) -> Any:
    return getattr(_torch.nn, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch.nn)})
