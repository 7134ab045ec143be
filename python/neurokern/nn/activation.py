"""Activation layers: torch.nn's classes with a forward on our kernels, and the gated units that torch lacks."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import functional as F
from ..functional.activation import check_approximate

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "GeGLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "PReLU",
    "RReLU",
    "ReGLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softshrink",
    "Softsign",
    "SquaredReLU",
    "SwiGLU",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class ReLU(torch.nn.ReLU):
    """torch.nn.ReLU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class ReLU6(torch.nn.ReLU6):
    """torch.nn.ReLU6 on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, self.inplace)


class LeakyReLU(torch.nn.LeakyReLU):
    """torch.nn.LeakyReLU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class PReLU(torch.nn.PReLU):
    """torch.nn.PReLU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)


class RReLU(torch.nn.RReLU):
    """torch.nn.RReLU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)


class ELU(torch.nn.ELU):
    """torch.nn.ELU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class SELU(torch.nn.SELU):
    """torch.nn.SELU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class CELU(torch.nn.CELU):
    """torch.nn.CELU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)


class GELU(torch.nn.GELU):
    """torch.nn.GELU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)


class SiLU(torch.nn.SiLU):
    """torch.nn.SiLU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class Mish(torch.nn.Mish):
    """torch.nn.Mish on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, self.inplace)


class Sigmoid(torch.nn.Sigmoid):
    """torch.nn.Sigmoid on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class LogSigmoid(torch.nn.LogSigmoid):
    """torch.nn.LogSigmoid on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Hardsigmoid(torch.nn.Hardsigmoid):
    """torch.nn.Hardsigmoid on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Hardswish(torch.nn.Hardswish):
    """torch.nn.Hardswish on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class Hardtanh(torch.nn.Hardtanh):
    """torch.nn.Hardtanh on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class Hardshrink(torch.nn.Hardshrink):
    """torch.nn.Hardshrink on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)


class Softshrink(torch.nn.Softshrink):
    """torch.nn.Softshrink on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)


class Tanhshrink(torch.nn.Tanhshrink):
    """torch.nn.Tanhshrink on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanhshrink(input)


class Softsign(torch.nn.Softsign):
    """torch.nn.Softsign on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class Softplus(torch.nn.Softplus):
    """torch.nn.Softplus on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class Threshold(torch.nn.Threshold):
    """torch.nn.Threshold on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)


class Tanh(torch.nn.Tanh):
    """torch.nn.Tanh on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class GLU(torch.nn.GLU):
    """torch.nn.GLU on our kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)


class SquaredReLU(torch.nn.Module):
    """max(x, 0) ** 2, any shape. Source: So et al. 2021 (Primer)."""

    def __init__(self, inplace: bool = False) -> None:
        if not isinstance(inplace, bool):
            raise TypeError(f"neurokern.SquaredReLU: argument inplace is {inplace!r}, expected a bool")
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.squared_relu(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class _GatedUnit(torch.nn.Module):
    def __init__(self, dim: int = -1) -> None:
        if not isinstance(dim, int) or isinstance(dim, bool):
            raise TypeError(f"neurokern.{type(self).__name__}: argument dim is {dim!r}, expected an int")
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class SwiGLU(_GatedUnit):
    """silu(a) * b for the halves a, b of the input along dim: [..., 2 D] -> [..., D]. Source: Shazeer 2020."""

    def forward(self, input: Tensor) -> Tensor:
        return F.swiglu(input, self.dim)


class GeGLU(_GatedUnit):
    """gelu(a) * b for the halves a, b of the input along dim: [..., 2 D] -> [..., D]. Source: Shazeer 2020."""

    def __init__(self, dim: int = -1, approximate: str = "none") -> None:
        check_approximate("GeGLU", approximate)
        super().__init__(dim)
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.geglu(input, self.dim, self.approximate)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, approximate={self.approximate!r}"


class ReGLU(_GatedUnit):
    """relu(a) * b for the halves a, b of the input along dim: [..., 2 D] -> [..., D]. Source: Shazeer 2020."""

    def forward(self, input: Tensor) -> Tensor:
        return F.reglu(input, self.dim)
