"""Padding, shuffles and sliding windows with the signatures of ``torch.nn.functional``.

Dtypes as in ``activation``; other ones (integers, bool, complex) go to torch. The layout of a result is torch's:
channels last where the input is, but of `unfold`, `fold` and circular padding, which are contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..ops.rearrangement import channel_shuffle as _channel_shuffle
from ..ops.rearrangement import fold as _fold
from ..ops.rearrangement import pad as _pad
from ..ops.rearrangement import pixel_shuffle as _pixel_shuffle
from ..ops.rearrangement import pixel_unshuffle as _pixel_unshuffle
from ..ops.rearrangement import unfold as _unfold

__all__ = ["channel_shuffle", "fold", "pad", "pixel_shuffle", "pixel_unshuffle", "unfold"]


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """The input with elements added around its last dims, or cut off where a number is negative.

    Args:
        input: any shape; for modes other than constant [(N,) C, ...] with one to three more dims, all of them padded.
        pad: two numbers for each dim, in front and behind, the last dim first.
        mode: "constant"; "reflect" (less than the size of the dim), without the edge; "replicate", the edge;
            "circular" (at most what is not cut off of the dim), from the other end.
        value: of the elements in mode constant; None: 0.

    Raises:
        NotImplementedError: mode is none of these, or does not pad so many dims of that input.
        RuntimeError: an odd count of numbers, more than dims, too large for the mode; a value for another mode than
            constant, or one that the dtype does not hold.
    """
    return _pad(input, pad, mode, value)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[..., C r r, H, W] to [..., C, H r, W r]: channels become pixels. Source: Shi et al. 2016.

    Raises:
        RuntimeError: fewer than three dims, channels that are no multiple of the factor's square, a factor below 1.
    """
    return _pixel_shuffle(input, upscale_factor)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[..., C, H r, W r] to [..., C r r, H, W], what `pixel_shuffle` undoes.

    Raises:
        RuntimeError: fewer than three dims, height or width that are no multiples of the factor, a factor below 1.
    """
    return _pixel_unshuffle(input, downscale_factor)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """[N, C, ...] with the channels as [groups, C / groups] transposed. Source: Zhang et al. 2018.

    Raises:
        RuntimeError: fewer than three dims, channels that are no multiple of groups, groups below 1.
    """
    return _channel_shuffle(input, groups)


def _pair(given: Any) -> Any:
    return (given, given) if type(given) is int else _sequence(given)


def _sequence(given: Any) -> Any:
    """Two of what torch takes for both dims, or the sequence that it is."""
    if isinstance(given, tuple | list):
        return given
    return tuple(given) if hasattr(given, "__len__") and not isinstance(given, str) else (given, given)


def unfold(
    input: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """The pixels under a window at each of its places, as columns: [(N,) C, H, W] to [(N,) C kernel, L].

    Args:
        input: [N, C, H, W] or [C, H, W].
        kernel_size, dilation, padding, stride: of both dims, or one number for both; zeros lie in the padding.

    Raises:
        RuntimeError: another number of dims, an empty dim, a size below what it may be, a window without a place.
        TypeError: a size that is no int.
    """
    size = getattr(input, "shape", ())[-2:]
    return _unfold(input, size, _pair(kernel_size), _pair(dilation), _pair(padding), _pair(stride))


def fold(
    input: Tensor,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """The image of which each pixel is the sum of the columns over it: [(N,) C kernel, L] to [(N,) C, H, W].

    Args:
        input: [N, C kernel, L] or [C kernel, L], with L places of the window in the image.
        output_size: H and W.
        kernel_size, dilation, padding, stride: as `unfold` takes them.

    Raises:
        RuntimeError: another number of dims, an empty dim, sizes that do not fit.
        TypeError: a size that is no int.
    """
    return _fold(input, _pair(output_size), _pair(kernel_size), _pair(dilation), _pair(padding), _pair(stride))
