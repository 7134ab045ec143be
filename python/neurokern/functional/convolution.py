"""Convolutions and transposed convolutions with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..core.parameters import index
from ..ops.convolution import convolution, convolution_activation, convolution_transpose
from .activation_name import Activation, parse_activation

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

Numbers = int | Sequence[int]


def _numbers(face: str, name: str, value: Any, dims: int) -> Sequence[int]:
    """``value`` for each of the dims: a number, or one in a sequence, stands for all."""
    if isinstance(value, tuple | list):
        if len(value) == dims:
            return value
        if len(value) != 1:
            raise RuntimeError(f"neurokern.{face}: argument {name} is {value!r}, expected an int or {dims} ints")
        (value,) = value
    return (index(face, name, value),) * dims


def _same(face: str, weight: Any, stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """The padding before and behind that keeps the image's size; of an odd number, more behind."""
    if any(s != 1 for s in stride):
        raise RuntimeError(
            f"neurokern.{face}: argument padding is 'same' and stride {stride!r}, expected a stride of 1"
        )
    padding = [0] * (2 * len(stride))
    for i, (k, d) in enumerate(zip(getattr(weight, "shape", ())[2:], dilation, strict=False)):
        padding[2 * i] = d * (k - 1) // 2
        padding[2 * i + 1] = d * (k - 1) - padding[2 * i]
    return padding


def _pairs(face: str, padding: Any, weight: Any, stride: Sequence[int], dilation: Sequence[int]) -> Sequence[int]:
    """Of any padding that torch takes, the numbers before and behind the image in each dim."""
    dims = len(stride)
    if isinstance(padding, str):
        if padding == "same":
            return _same(face, weight, stride, dilation)
        if padding != "valid":
            raise RuntimeError(
                f"neurokern.{face}: argument padding is {padding!r}, expected 'same', 'valid', an int or {dims} ints"
            )
        return (0,) * (2 * dims)
    return [p for p in _numbers(face, "padding", padding, dims) for _ in (0, 1)]


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: str | Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: Tensor | None = None,
) -> Tensor:
    """activation(input * weight + bias) + residual, where * is the cross-correlation along the last dimension.

    y[n, o, i] = bias[o] + sum over c, k of weight[o, c, k] input[n, c, i stride + k dilation - padding]. With groups,
    c goes over the channels of o's group alone. Source: LeCun et al. 1989; groups: Krizhevsky et al. 2012.

    Args:
        input: [N, C, L], or [C, L] without a batch.
        weight: [O, C / groups, K].
        bias: [O].
        stride: steps of input between two windows.
        padding: elements before and behind the input; "valid": none; "same": as many as keep its size, which needs a
            stride of 1; of an odd number, one more behind.
        dilation: steps of input between two elements of a window.
        groups: channels are cut into so many groups, each with a convolution of its own.
        padding_mode: what the padding holds: "zeros", "reflect", "replicate" or "circular". No padded copy is made.
        activation: a name ("relu", "silu", ...; see ``neurokern.nn.ConvActivation2d``), (name, parameters...), or None.
        residual: broadcasts to the output [N, O, (L + 2 padding - dilation (K - 1) - 1) // stride + 1].

    Raises:
        RuntimeError: shapes, dtypes or devices do not match, a number is out of range, the window is larger than the
            padded input, or the padding reaches further than its mode can fill.
        TypeError: an argument is of another type.
        ValueError: no activation or padding mode has that name.
    """
    stride = _numbers("conv1d", "stride", stride, 1)
    dilation = _numbers("conv1d", "dilation", dilation, 1)
    around = _pairs("conv1d", padding, weight, stride, dilation)
    if activation is None and residual is None:
        return convolution(input, weight, bias, "conv1d", stride, around, dilation, groups, padding_mode)
    act = parse_activation("conv1d", activation)
    return convolution_activation(
        input, weight, bias, residual, "conv1d", stride, around, dilation, groups, padding_mode, *act
    )


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: str | Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: Tensor | None = None,
) -> Tensor:
    """As `conv1d`, over two dimensions. Of channels_last input or weight, the output is channels_last.

    Args:
        input: [N, C, H, W], or [C, H, W] without a batch.
        weight: [O, C / groups, KH, KW].
        bias: [O].
        stride, padding, dilation: a number for both dimensions, or (of H, of W). padding may be "same" or "valid".
        groups, padding_mode, activation: as in `conv1d`.
        residual: broadcasts to the output [N, O, H', W'], whose sizes follow from H and W as in `conv1d`.

    Raises:
        RuntimeError, TypeError, ValueError: as `conv1d`.
    """
    # written out for the usual kinds of numbers: a call of a small convolution takes a few microseconds in all
    stride = (stride, stride) if type(stride) is int else _numbers("conv2d", "stride", stride, 2)
    dilation = (dilation, dilation) if type(dilation) is int else _numbers("conv2d", "dilation", dilation, 2)
    if type(padding) is int:
        around = (padding, padding, padding, padding)
    else:
        around = _pairs("conv2d", padding, weight, stride, dilation)
    if activation is None and residual is None:
        return convolution(input, weight, bias, "conv2d", stride, around, dilation, groups, padding_mode)
    act = parse_activation("conv2d", activation)
    return convolution_activation(
        input, weight, bias, residual, "conv2d", stride, around, dilation, groups, padding_mode, *act
    )


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: str | Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: Tensor | None = None,
) -> Tensor:
    """As `conv1d`, over three dimensions. Of channels_last_3d input or weight, the output is channels_last_3d.

    Args:
        input: [N, C, D, H, W], or [C, D, H, W] without a batch.
        weight: [O, C / groups, KD, KH, KW].
        bias: [O].
        stride, padding, dilation: a number for all dimensions, or (of D, of H, of W). padding may be "same" or "valid".
        groups, padding_mode, activation: as in `conv1d`.
        residual: broadcasts to the output [N, O, D', H', W'], whose sizes follow from D, H and W as in `conv1d`.

    Raises:
        RuntimeError, TypeError, ValueError: as `conv1d`.
    """
    stride = _numbers("conv3d", "stride", stride, 3)
    dilation = _numbers("conv3d", "dilation", dilation, 3)
    around = _pairs("conv3d", padding, weight, stride, dilation)
    if activation is None and residual is None:
        return convolution(input, weight, bias, "conv3d", stride, around, dilation, groups, padding_mode)
    act = parse_activation("conv3d", activation)
    return convolution_activation(
        input, weight, bias, residual, "conv3d", stride, around, dilation, groups, padding_mode, *act
    )


def _transpose(
    face: str,
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Numbers,
    padding: Numbers,
    output_padding: Numbers,
    groups: int,
    dilation: Numbers,
) -> Tensor:
    return convolution_transpose(
        input,
        weight,
        bias,
        face,
        _numbers(face, "stride", stride, dims),
        [p for p in _numbers(face, "padding", padding, dims) for _ in (0, 1)],
        _numbers(face, "output_padding", output_padding, dims),
        _numbers(face, "dilation", dilation, dims),
        groups,
    )


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """The transpose of the map that `conv1d` of the same weight makes of its input, plus bias.

    Each element of input adds weight, scaled by it, to the output, ``stride`` apart. Source: Zeiler et al. 2010.

    Args:
        input: [N, C, L], or [C, L] without a batch.
        weight: [C, O / groups, K].
        bias: [O].
        stride: steps of the output between two windows.
        padding: elements that are cut from both ends of the output.
        output_padding: elements more at its end, fewer than stride or than dilation.
        groups: channels are cut into so many groups, each with a convolution of its own.
        dilation: steps of the output between two elements of a window.

    Returns:
        [N, O, (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1].

    Raises:
        RuntimeError: shapes, dtypes or devices do not match, a number is out of range, or no output is left.
        TypeError: an argument is of another type.
    """
    return _transpose("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """As `conv_transpose1d`, over two dimensions. Of channels_last input or weight, the output is channels_last.

    Args:
        input: [N, C, H, W], or [C, H, W] without a batch.
        weight: [C, O / groups, KH, KW].
        bias: [O].
        stride, padding, output_padding, dilation: a number for both dimensions, or (of H, of W).
        groups: as in `conv_transpose1d`.

    Returns:
        [N, O, H', W'], whose sizes follow from H and W as in `conv_transpose1d`.

    Raises:
        RuntimeError, TypeError: as `conv_transpose1d`.
    """
    return _transpose("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """As `conv_transpose1d`, over three dimensions. Of channels_last_3d input or weight, the output is the same.

    Args:
        input: [N, C, D, H, W], or [C, D, H, W] without a batch.
        weight: [C, O / groups, KD, KH, KW].
        bias: [O].
        stride, padding, output_padding, dilation: a number for all dimensions, or (of D, of H, of W).
        groups: as in `conv_transpose1d`.

    Returns:
        [N, O, D', H', W'], whose sizes follow from D, H and W as in `conv_transpose1d`.

    Raises:
        RuntimeError, TypeError: as `conv_transpose1d`.
    """
    return _transpose("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation)
