"""Interpolation, forward and backward: decoders of image networks, pyramids and resized images."""

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
