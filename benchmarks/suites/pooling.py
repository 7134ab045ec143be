"""Pooling, forward and backward: the layers of image networks, as planes and with the channels innermost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import neurokern.functional as F
import torch
from neurokern.bench.cases import Case

T = torch.nn.functional

# op, arguments, [C, H, W] and where it comes from
LAYERS: tuple[tuple[str, dict[str, Any], tuple[int, int, int], str], ...] = (
    ("max_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, (64, 112, 112), "ResNet-50"),
    ("max_pool2d", {"kernel_size": 3, "stride": 2}, (64, 55, 55), "AlexNet, first"),
    ("max_pool2d", {"kernel_size": 3, "stride": 2}, (256, 13, 13), "AlexNet, last"),
    ("max_pool2d", {"kernel_size": 2}, (64, 32, 32), "2 x 2"),
    ("avg_pool2d", {"kernel_size": 2}, (128, 28, 28), "DenseNet"),
    ("avg_pool2d", {"kernel_size": 3, "stride": 1, "padding": 1}, (192, 35, 35), "Inception"),
    ("adaptive_avg_pool2d", {"output_size": 1}, (2048, 7, 7), "ResNet-50"),
    ("adaptive_avg_pool2d", {"output_size": 6}, (256, 13, 13), "AlexNet"),
    ("adaptive_max_pool2d", {"output_size": 7}, (256, 16, 16), "regions"),
)


def _planes(functions: ModuleType, op: str, arguments: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    return getattr(functions, op)(x, **arguments)


def _channels(functions: ModuleType, op: str, arguments: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    return getattr(functions, op)(x.permute(0, 3, 1, 2), **arguments)


def _and_back(functions: ModuleType, x: torch.Tensor) -> torch.Tensor:
    """SegNet's way down and up again."""
    y, indices = functions.max_pool2d(x, 2, return_indices=True)
    return functions.max_unpool2d(y, indices, 2)


def pools(device: str, quick: bool) -> list[Case]:
    """Each layer at batch 1 and 8, in both layouts; volumes, rows and the way back once."""
    cases = []

    def add(op: str, label: str, dtype: str, f: Callable[..., Any], *shape: int) -> None:
        cases.append(Case(op, label, dtype, partial(f, F), partial(f, T), (shape,), (1.0,), grad=True))

    for dtype in ("f32", "bf16"):
        for batch in (1,) if quick else (1, 8):
            for op, arguments, (c, h, w), where in LAYERS:
                make = partial(_Layer, op, arguments)
                label = f"{where}, batch {batch}"
                add(op, label, dtype, make(_planes), batch, c, h, w)
                add(op, f"{label}, channels last", dtype, make(_channels), batch, h, w, c)
            add("max_unpool2d", f"SegNet, batch {batch}", dtype, _and_back, batch, 64, 32, 32)
            add(
                "max_pool3d",
                f"2 x 2 x 2, batch {batch}",
                dtype,
                _Layer("max_pool3d", {"kernel_size": 2}, _planes),
                batch,
                16,
                8,
                28,
                28,
            )
            add(
                "max_pool1d",
                f"rows, batch {batch}",
                dtype,
                _Layer("max_pool1d", {"kernel_size": 4}, _planes),
                batch,
                64,
                1000,
            )
    return cases


class _Layer:
    """A layer of either package."""

    def __init__(self, op: str, arguments: dict[str, Any], way: Callable[..., torch.Tensor]) -> None:
        self.op, self.arguments, self.way = op, arguments, way

    def __call__(self, functions: ModuleType, x: torch.Tensor) -> torch.Tensor:
        return self.way(functions, self.op, self.arguments, x)
