"""Rearrangement's Triton kernels under the names of ``neurokern._C``, as in `triton`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..kernels.triton import activation as _activation
from ..kernels.triton import rearrangement as _rearrangement
from .triton_launch import IDS, recorded

__all__ = [
    "channel_shuffle",
    "channel_shuffle_backward",
    "fold",
    "fold_backward",
    "pad",
    "pad_backward",
    "pad_gradient_backward",
    "pixel_shuffle",
    "pixel_shuffle_backward",
    "pixel_unshuffle",
    "pixel_unshuffle_backward",
    "unfold",
    "unfold_backward",
]


def _around(t: Tensor, amounts: Any) -> list[int]:
    """What is added in front of each dim."""
    given = list(amounts[::2])
    return [0] * (t.dim() - len(given)) + given[::-1]


def pad(out: Tensor, x: Tensor, amounts: Any, mode: str, value: float | None = None) -> None:
    """out = x padded."""
    recorded("pad", _rearrangement.pad, out, x, mode, _around(x, amounts), value or 0.0)


pad_gradient_backward = pad


def pad_backward(gx: Tensor, g: Tensor, amounts: Any, mode: str, value: float | None = None) -> None:
    """The gradient of pad."""
    if mode == "constant":
        pad(gx, g, [-a for a in amounts], mode)
    else:
        recorded("pad_backward", _rearrangement.pad_sums, gx, g, mode, _around(g, amounts))


def _copied(op: str, out: Tensor, x: Tensor) -> None:
    recorded(op, _activation.unary, out, x, IDS["identity"], 0.0, 0.0)


def _split(t: Tensor, r: int, large: bool) -> Tensor:
    """[..., c, h, r, w, r] of either image."""
    if large:
        return t.unflatten(-1, (-1, r)).unflatten(-3, (-1, r)) if t.numel() else t
    return t.unflatten(-3, (-1, r, r)).permute(*range(t.dim() - 3), -5, -2, -4, -1, -3) if t.numel() else t


def pixel_shuffle(out: Tensor, x: Tensor, factor: int) -> None:
    """Channels of x to pixels of out."""
    _copied("pixel_shuffle", _split(out, factor, True), _split(x, factor, False))


def pixel_unshuffle(out: Tensor, x: Tensor, factor: int) -> None:
    """Pixels of x to channels of out."""
    _copied("pixel_unshuffle", _split(out, factor, False), _split(x, factor, True))


pixel_shuffle_backward, pixel_unshuffle_backward = pixel_unshuffle, pixel_shuffle


def channel_shuffle(out: Tensor, x: Tensor, groups: int) -> None:
    """Channel (i, j) of [groups, C / groups] to (j, i)."""
    if out.numel():
        _copied("channel_shuffle", out.unflatten(1, (-1, groups)), x.unflatten(1, (groups, -1)).transpose(1, 2))


def channel_shuffle_backward(gx: Tensor, g: Tensor, groups: int) -> None:
    """Channel (j, i) back to (i, j)."""
    if gx.numel():
        channel_shuffle(gx, g, g.shape[1] // groups)


def _batched(t: Tensor, dims: int) -> Tensor:
    return t if t.dim() == dims else t.unsqueeze(0)


def unfold(out: Tensor, x: Tensor, size: Any, *window: Any) -> None:
    """Columns of the pixels under a window."""
    recorded("unfold", _rearrangement.unfold, _batched(out, 3), _batched(x, 4), *window)


def fold(out: Tensor, x: Tensor, size: Any, *window: Any) -> None:
    """Images that are sums of columns."""
    recorded("fold", _rearrangement.fold, _batched(out, 4), _batched(x, 3), *window)


unfold_backward, fold_backward = fold, unfold
