"""Convolutions: torch.nn's classes on our kernels, and one with a fused activation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..functional.activation_name import Activation, is_name, name_of, parse_activation

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvActivation2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
]


def why_not(module: torch.nn.Module) -> str | None:
    """Why a layer with torch's forward is left alone: it overrides what that forward calls."""
    for name in ("_conv_forward", "_output_padding"):
        method = getattr(module, name, None)
        if method is not None and method.__module__ != torch.nn.modules.conv.__name__:
            return f"a {name} of its own"
    return None


def _padding(layer: Any) -> Any:
    """Its padding in numbers, where "same" is as much before as behind: a tracer's weight has no sizes."""
    if layer.padding == "same":
        around = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if all(n % 2 == 0 for n in around):
            return tuple(n // 2 for n in around)
    return layer.padding


class Conv1d(torch.nn.Conv1d):
    """torch.nn.Conv1d on our kernels: [N, C, L] -> [N, O, L'], or the same without N; no padded copy."""

    _folded: Any = None  # with a batch norm, see fold.py

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._folded is not None:
            weight, bias = self._folded.into(self, weight, bias)
        return F.conv1d(
            input,
            weight,
            bias,
            self.stride,
            _padding(self),
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
        )


class Conv2d(torch.nn.Conv2d):
    """torch.nn.Conv2d on our kernels: [N, C, H, W] -> [N, O, H', W'], or the same without N; no padded copy."""

    _folded: Any = None  # with a batch norm, see fold.py

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._folded is not None:
            weight, bias = self._folded.into(self, weight, bias)
        return F.conv2d(
            input,
            weight,
            bias,
            self.stride,
            _padding(self),
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
        )


class Conv3d(torch.nn.Conv3d):
    """torch.nn.Conv3d on our kernels: [N, C, D, H, W] -> [N, O, D', H', W'], or the same without N; no padded copy."""

    _folded: Any = None  # with a batch norm, see fold.py

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._folded is not None:
            weight, bias = self._folded.into(self, weight, bias)
        return F.conv3d(
            input,
            weight,
            bias,
            self.stride,
            _padding(self),
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
        )


def _output_padding(layer: Any, input: Tensor, output_size: list[int] | None) -> Any:
    """What makes the output of that size, where one is given."""
    if output_size is None:
        return layer.output_padding
    dims = len(layer.kernel_size)
    return layer._output_padding(
        input, output_size, layer.stride, layer.padding, layer.kernel_size, dims, layer.dilation
    )


class ConvTranspose1d(torch.nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d on our kernels: [N, C, L] -> [N, O, L'], or the same without N."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = _output_padding(self, input, output_size)
        return F.conv_transpose1d(
            input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation
        )


class ConvTranspose2d(torch.nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d on our kernels: [N, C, H, W] -> [N, O, H', W'], or the same without N."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = _output_padding(self, input, output_size)
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation
        )


class ConvTranspose3d(torch.nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d on our kernels: [N, C, D, H, W] -> [N, O, D', H', W'], or the same without N."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        more = _output_padding(self, input, output_size)
        return F.conv_transpose3d(
            input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation
        )


class LazyConv1d(torch.nn.LazyConv1d):
    """torch.nn.LazyConv1d that becomes a `Conv1d` of ours."""

    cls_to_become = Conv1d


class LazyConv2d(torch.nn.LazyConv2d):
    """torch.nn.LazyConv2d that becomes a `Conv2d` of ours."""

    cls_to_become = Conv2d


class LazyConv3d(torch.nn.LazyConv3d):
    """torch.nn.LazyConv3d that becomes a `Conv3d` of ours."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(torch.nn.LazyConvTranspose1d):
    """torch.nn.LazyConvTranspose1d that becomes a `ConvTranspose1d` of ours."""

    cls_to_become = ConvTranspose1d
    forward = ConvTranspose1d.forward  # torch looks it up before the first call makes another class of it


class LazyConvTranspose2d(torch.nn.LazyConvTranspose2d):
    """torch.nn.LazyConvTranspose2d that becomes a `ConvTranspose2d` of ours."""

    cls_to_become = ConvTranspose2d
    forward = ConvTranspose2d.forward


class LazyConvTranspose3d(torch.nn.LazyConvTranspose3d):
    """torch.nn.LazyConvTranspose3d that becomes a `ConvTranspose3d` of ours."""

    cls_to_become = ConvTranspose3d
    forward = ConvTranspose3d.forward


class ConvActivation2d(Conv2d):
    """A convolution whose activation and residual are applied while its sums are still in registers.

    ``layer(x)`` is activation(x * weight + bias), ``layer(x, residual)`` adds residual [N, O, H', W'].
    Parameters and state_dict are those of torch.nn.Conv2d.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as
            torch.nn.Conv2d.
        activation: a name of ``neurokern.functional`` ("relu", "gelu", "gelu_tanh", "silu", ...), or
            (name, parameters...) with the parameters in torch's order, as in ("leaky_relu", 0.2); None: no activation.

    Raises:
        TypeError: another argument is a name of an activation, or activation is no name (a function, for instance).
        ValueError: no activation has that name; channels, groups or padding are none that torch.nn.Conv2d takes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Any = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        activation: Activation = "relu",
    ) -> None:
        window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        for name, value in {**window, "bias": bias, "padding_mode": padding_mode, "device": device}.items():
            found = value if is_name(value) else name_of(value)
            if found is not None:
                raise TypeError(f"neurokern.ConvActivation2d: argument {name} is {value!r}; pass activation={found!r}")
        if not isinstance(bias, bool):
            raise TypeError(f"neurokern.ConvActivation2d: argument bias is {bias!r}, expected a bool")
        parse_activation("ConvActivation2d", activation)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            **window,
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
        )
        self.activation = activation

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return F.conv2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            _padding(self),
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            activation=self.activation,
            residual=residual,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation!r}"
