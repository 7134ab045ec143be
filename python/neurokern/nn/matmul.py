"""Linear layers: torch.nn's classes with a forward on our kernels, and one with a fused activation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..functional.activation_name import Activation, is_name, name_of, parse_activation

__all__ = [
    "Bilinear",
    "LazyLinear",
    "Linear",
    "LinearActivation",
]


class Linear(torch.nn.Linear):
    """torch.nn.Linear on our kernels: [..., in_features] -> [..., out_features]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class LazyLinear(torch.nn.LazyLinear):
    """torch.nn.LazyLinear that becomes a `Linear` of ours."""

    cls_to_become = Linear
    forward = Linear.forward  # torch looks it up before the first call makes a `Linear` of it


class Bilinear(torch.nn.Bilinear):
    """torch.nn.Bilinear on our kernels: [..., in1_features], [..., in2_features] -> [..., out_features]."""

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)


class LinearActivation(Linear):
    """A linear layer whose activation and residual are applied while the product is still in registers.

    ``layer(x)`` is activation(x @ weight.T + bias), ``layer(x, residual)`` adds residual [..., out_features].
    Parameters and state_dict are those of torch.nn.Linear.

    Args:
        in_features, out_features, bias, device, dtype: as torch.nn.Linear.
        activation: a name of ``neurokern.functional`` ("relu", "gelu", "gelu_tanh", "silu", ...), or
            (name, parameters...) with the parameters in torch's order, as in ("leaky_relu", 0.2); None: no activation.

    Raises:
        TypeError: bias is no bool, activation no name (a function or a module, for instance).
        ValueError: no activation has that name.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        activation: Activation = "relu",
    ) -> None:
        # torch takes anything for a bias, and a name there would be a layer with another activation
        if not isinstance(bias, bool):
            name = bias if is_name(bias) else name_of(bias)
            hint = "" if name is None else f"; pass activation={name!r}"
            raise TypeError(f"neurokern.LinearActivation: argument bias is {bias!r}, expected a bool{hint}")
        if is_name(device):
            raise TypeError(
                f"neurokern.LinearActivation: argument device is {device!r}, expected a device; "
                f"pass activation={device!r}"
            )
        parse_activation("LinearActivation", activation)
        super().__init__(in_features, out_features, bias, device, dtype)
        self.activation = activation

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return F.linear(input, self.weight, self.bias, activation=self.activation, residual=residual)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation!r}"
