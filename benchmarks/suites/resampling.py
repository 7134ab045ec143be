"""Interpolation and samples at points of a grid, forward and backward: decoders, pyramids, warped images."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import neurokern.functional as F
import torch
from neurokern.bench.cases import Case

T = torch.nn.functional

# label, arguments, [N, C, H, W]
LAYERS: tuple[tuple[str, dict[str, Any], tuple[int, ...]], ...] = (
    ("feature pyramid", {"scale_factor": 2.0, "mode": "nearest"}, (2, 256, 25, 25)),
    ("U-Net", {"scale_factor": 2.0, "mode": "bilinear", "align_corners": True}, (1, 128, 56, 56)),
    ("segmentation head", {"size": (224, 224), "mode": "bilinear"}, (1, 21, 28, 28)),
    ("position embedding", {"size": (24, 24), "mode": "bicubic"}, (1, 384, 14, 14)),
    ("image made smaller", {"size": (224, 224), "mode": "bilinear", "antialias": True}, (1, 3, 480, 640)),
    ("image made smaller", {"size": (224, 224), "mode": "bicubic", "antialias": True}, (1, 3, 480, 640)),
)


def _planes(functions: ModuleType, arguments: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    return functions.interpolate(x, **arguments)


def _channels(functions: ModuleType, arguments: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return functions.interpolate(x.reshape(n, h, w, c).permute(0, 3, 1, 2), **arguments)


def interpolations(device: str, quick: bool) -> list[Case]:
    """Each layer with its gradient, in both layouts; in bf16 what torch has a kernel for."""
    cases = []
    for dtype in ("f32",) if quick else ("f32", "bf16"):
        for label, arguments, shape in LAYERS:
            if dtype == "bf16" and "antialias" in arguments and device == "cpu":
                continue
            for name, way in (("", _planes), (", channels last", _channels)):
                ours, theirs = (partial(way, f, arguments) for f in (F, T))
                text = f"{label}, {arguments['mode']}{name}"
                cases.append(Case("interpolate", text, dtype, ours, theirs, (shape,), (1.0,), grad=True))
    return cases


# label, arguments, [N, C, H, W], sizes of the grid
WARPS: tuple[tuple[str, dict[str, Any], tuple[int, ...], tuple[int, int]], ...] = (
    ("warped features", {"mode": "bilinear"}, (8, 64, 56, 56), (56, 56)),
    ("warped images", {"mode": "bilinear", "padding_mode": "border"}, (8, 3, 224, 224), (224, 224)),
    ("warped features", {"mode": "bicubic"}, (8, 64, 56, 56), (56, 56)),
    ("attention at few points", {"mode": "bilinear"}, (16, 32, 64, 64), (100, 4)),
)


def _sample_planes(
    functions: ModuleType, arguments: dict[str, Any], x: torch.Tensor, grid: torch.Tensor
) -> torch.Tensor:
    return functions.grid_sample(x, grid, **arguments, align_corners=False)


def _sample_channels(
    functions: ModuleType, arguments: dict[str, Any], x: torch.Tensor, grid: torch.Tensor
) -> torch.Tensor:
    n, c, h, w = x.shape
    return _sample_planes(functions, arguments, x.reshape(n, h, w, c).permute(0, 3, 1, 2), grid)


def samples(device: str, quick: bool) -> list[Case]:
    """Each warp with both gradients, in both layouts."""
    cases = []
    for label, arguments, shape, points in WARPS[:1] if quick else WARPS:
        for name, way in (("", _sample_planes), (", channels last", _sample_channels)):
            ours, theirs = (partial(way, f, arguments) for f in (F, T))
            text = f"{label}, {arguments['mode']}{name}"
            shapes = (shape, (shape[0], *points, 2))
            cases.append(Case("grid_sample", text, "f32", ours, theirs, shapes, (1.0, 0.5), grad=True, together=2))
    return cases


def resampling(device: str, quick: bool) -> list[Case]:
    """All of it."""
    return interpolations(device, quick) + samples(device, quick)
