"""Convolution's Triton kernels under the names of ``neurokern._C``, as in `triton`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..kernels.triton import activation as _activation
from ..kernels.triton import convolution as _convolution
from .triton_launch import IDS, Maybe, recorded, rounded

__all__ = [
    "convolution",
    "convolution_activation",
    "convolution_activation_backward",
    "convolution_backward",
    "convolution_transpose",
    "convolution_transpose_backward",
    "convolution_weight_gradient",
    "convolution_weight_gradient_backward",
]


def _three(values: Any) -> tuple[int, ...]:
    return (1,) * (3 - len(values)) + tuple(values)


def _geometry(stride: Any, padding: Any, dilation: Any, groups: int, mode: str) -> _convolution.Geometry:
    none = (0,) * (3 - len(stride))
    return _convolution.Geometry(
        _three(stride), none + tuple(padding[::2]), none + tuple(padding[1::2]), _three(dilation), groups, mode
    )


def _five(t: Maybe, dims: int, weight: bool = False) -> Maybe:
    """[images, channels, depth, height, width] of any convolution's tensor."""
    if t is None:
        return None
    t = t if weight or t.dim() == dims + 2 else t.unsqueeze(0)
    for _ in range(3 - dims):
        t = t.unsqueeze(2)
    return t


def _forward(
    op: str, y: Tensor, preact: Maybe, x: Tensor, weight: Tensor, bias: Maybe, residual: Maybe, *more: Any
) -> None:
    _, stride, padding, dilation, groups, mode, act, p0, p1 = more
    dims = len(stride)
    if residual is not None:
        residual = residual.expand(y.shape)
    recorded(
        op, _convolution.forward, _five(y, dims), _five(x, dims), _five(weight, dims, True),
        _geometry(stride, padding, dilation, groups, mode), bias, _five(residual, dims), _five(preact, dims),
        IDS[act], p0, p1,
    )  # fmt: skip


def convolution(y: Tensor, preact: None, x: Tensor, weight: Tensor, bias: Maybe, *window: Any) -> None:
    """y = x * weight + bias."""
    _forward("convolution", y, None, x, weight, bias, None, *window, "identity", 0.0, 0.0)


def convolution_activation(
    y: Tensor, preact: Maybe, x: Tensor, weight: Tensor, bias: Maybe, residual: Maybe, *more: Any
) -> None:
    """y = act(x * weight + bias) + residual; preact: the argument of act."""
    *window, act, p0, p1 = more
    p0 = rounded(x, act, p0, False)
    _forward("convolution_activation", y, preact, x, weight, bias, residual, *window, act, p0, p1)


def _gradients(op: str, gx: Maybe, gw: Maybe, gb: Maybe, g: Tensor, x: Tensor, weight: Tensor, *window: Any) -> None:
    _, stride, *rest = window
    dims, geometry = len(stride), _geometry(stride, *rest)
    g5 = _five(g, dims)
    if gx is not None:
        recorded(op, _convolution.data_gradient, _five(gx, dims), g5, _five(weight, dims, True), geometry)
    if gw is not None:
        recorded(op, _convolution.weight_gradient, _five(gw, dims, True), _five(x, dims), g5, geometry)
    if gb is not None:
        recorded(op, _convolution.channel_sums, gb, g5)


def convolution_backward(gx: Maybe, gw: Maybe, gb: Maybe, gz: None, *given: Any) -> None:
    """The gradients of convolution."""
    _gradients("convolution_backward", gx, gw, gb, *given[:-1])


def convolution_activation_backward(gx: Maybe, gw: Maybe, gb: Maybe, gz: Maybe, *given: Any) -> None:
    """The gradients of convolution_activation."""
    g, x, weight, preact, *window, act, p0, p1, _ = given
    if gz is not None:
        p0 = rounded(g, act, p0)
        recorded("unary_backward", _activation.unary_backward, gz, g, preact, IDS[act], p0, p1)
    _gradients("convolution_activation_backward", gx, gw, gb, g if gz is None else gz, x, weight, *window)


def convolution_transpose(y: Tensor, x: Tensor, weight: Tensor, bias: Maybe, *window: Any) -> None:
    """The transpose of the convolution."""
    _, stride, padding, _, dilation, groups = window
    dims = len(stride)
    recorded(
        "convolution_transpose", _convolution.data_gradient, _five(y, dims), _five(x, dims),
        _five(weight, dims, True), _geometry(stride, padding, dilation, groups, "zeros"), bias,
    )  # fmt: skip


def convolution_transpose_backward(gx: Maybe, gw: Maybe, gb: Maybe, *given: Any) -> None:
    """The gradients of convolution_transpose."""
    g, x, weight, _, stride, padding, _, dilation, groups, _ = given
    dims, geometry = len(stride), _geometry(stride, padding, dilation, groups, "zeros")
    op, g5 = "convolution_transpose_backward", _five(g, dims)
    if gx is not None:
        recorded(op, _convolution.forward, _five(gx, dims), g5, _five(weight, dims, True), geometry)
    if gw is not None:
        recorded(op, _convolution.weight_gradient, _five(gw, dims, True), g5, _five(x, dims), geometry)
    if gb is not None:
        recorded(op, _convolution.channel_sums, gb, g5)


def convolution_weight_gradient(gw: Tensor, g: Tensor, x: Tensor, face: str, kernel: Any, *window: Any) -> None:
    """The gradient of the weight."""
    dims = len(kernel)
    recorded(
        "convolution_weight_gradient", _convolution.weight_gradient, _five(gw, dims, True), _five(x, dims),
        _five(g, dims), _geometry(*window),
    )  # fmt: skip


def convolution_weight_gradient_backward(to_g: Maybe, to_x: Maybe, gg: Tensor, *given: Any) -> None:
    """The gradients of the weight's gradient."""
    g, x, _, kernel, *window, _ = given
    dims, geometry = len(kernel), _geometry(*window)
    op, weight = "convolution_weight_gradient_backward", _five(gg, dims, True)
    if to_g is not None:
        recorded(op, _convolution.forward, _five(to_g, dims), _five(x, dims), weight, geometry)
    if to_x is not None:
        recorded(op, _convolution.data_gradient, _five(to_x, dims), _five(g, dims), weight, geometry)
