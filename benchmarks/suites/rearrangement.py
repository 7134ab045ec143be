"""Padding, shuffles and sliding windows on the images of a network, contiguous and channels last."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern.bench.cases import Case

T = torch.nn.functional
IMAGE, CHANNELS, SMALL = (8, 64, 56, 56), (8, 256, 28, 28), (8, 64, 28, 28)
MODES = ("constant", "reflect", "replicate", "circular")


def _pad(functions: Any, pad: int, mode: str, last: bool, x: torch.Tensor) -> torch.Tensor:
    return functions.pad(_laid_out(x, last), (pad,) * 4, mode)


def _shuffled(functions: Any, name: str, factor: int, last: bool, x: torch.Tensor) -> torch.Tensor:
    return getattr(functions, name)(_laid_out(x, last), factor)


def _unfolded(functions: Any, last: bool, x: torch.Tensor) -> torch.Tensor:
    return functions.unfold(_laid_out(x, last), 3, padding=1)


def _folded(functions: Any, last: bool, x: torch.Tensor) -> torch.Tensor:
    return functions.fold(x, SMALL[2:], 3, padding=1)


def _laid_out(x: torch.Tensor, last: bool) -> torch.Tensor:
    """[N, C, H, W], of memory [N, H, W, C] where it is channels last: a view of the case's tensor."""
    n, c, h, w = x.shape
    return x.reshape(n, h, w, c).permute(0, 3, 1, 2) if last else x


def rearrangements(device: str, quick: bool) -> list[Case]:
    """Each op with its gradient."""
    cases = []

    def add(op: str, function: Callable[..., torch.Tensor], shape: tuple[int, ...], *more: Any) -> None:
        layouts = (False,) if op == "fold" else (False, True)
        for dtype in ("f32", "bf16"):
            for last in layouts:
                ours, theirs = (partial(function, f, *more, last) for f in (F, T))
                label = " x ".join(map(str, shape)) + (", channels last" if last else "")
                cases.append(Case(op, label, dtype, ours, theirs, (shape,), (1.0,), grad=True))

    for mode in MODES[:: 3 if quick else 1]:
        for pad in (1, 3):
            add(f"pad {pad} {mode}", _pad, IMAGE, pad, mode)
    add("pixel_shuffle", _shuffled, CHANNELS, "pixel_shuffle", 2)
    add("pixel_unshuffle", _shuffled, IMAGE, "pixel_unshuffle", 2)
    add("channel_shuffle", _shuffled, CHANNELS, "channel_shuffle", 8)
    add("unfold", _unfolded, SMALL)
    add("fold", _folded, (8, 64 * 9, 28 * 28))
    return cases
