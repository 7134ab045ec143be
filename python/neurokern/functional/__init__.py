"""torch.nn.functional's signatures on our kernels; names that are not ours fall through to torch.nn.functional."""

from __future__ import annotations

from typing import Any

import torch as _torch

from ._softmax import log_softmax, softmax, softmin
from .activation import (
    celu,
    celu_,
    elu,
    elu_,
    geglu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    hardtanh_,
    leaky_relu,
    leaky_relu_,
    logsigmoid,
    mish,
    prelu,
    reglu,
    relu,
    relu6,
    relu_,
    rrelu,
    rrelu_,
    selu,
    selu_,
    sigmoid,
    silu,
    softplus,
    softshrink,
    softsign,
    squared_relu,
    swiglu,
    tanh,
    tanhshrink,
    threshold,
    threshold_,
)
from .matmul import addmm, bilinear, bmm, linear, matmul, mm

__all__ = [
    "addmm",
    "bilinear",
    "bmm",
    "celu",
    "celu_",
    "elu",
    "elu_",
    "geglu",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "linear",
    "log_softmax",
    "logsigmoid",
    "matmul",
    "mish",
    "mm",
    "prelu",
    "reglu",
    "relu",
    "relu6",
    "relu_",
    "rrelu",
    "rrelu_",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "squared_relu",
    "swiglu",
    "tanh",
    "tanhshrink",
    "threshold",
    "threshold_",
]


def __getattr__(name: str) -> Any:
    return getattr(_torch.nn.functional, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_torch.nn.functional)})
