"""Results of 1 to 64 MiB: the same tensors again and those that no cache keeps, forward and backward apart.

A suite whose tensors take turns, and whose gradients are timed with their forward pass, doesn't see what a store past
the caches costs whoever reads the result next.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from neurokern import functional as F
from neurokern.bench.cases import Case

from .activation import GATED, MI, UNARY, T

N = 1024  # a row

OPS: dict[str, tuple[Any, Any]] = {
    "relu": UNARY["relu"],
    "gelu": UNARY["gelu"],
    "swiglu": GATED["swiglu"],
    "softmax": (partial(F.softmax, dim=-1), partial(T.softmax, dim=-1)),
    "layer_norm": (
        partial(F.layer_norm, normalized_shape=(N,)),
        partial(T.layer_norm, normalized_shape=(N,)),
    ),
}
MORE = {name: UNARY[name] for name in ("silu", "tanh", "leaky_relu")} | {"glu": GATED["glu"]}
SIZES = {"f32": (1, 4, 16, 64), "bf16": (4, 64)}  # MiB of result
WAYS: tuple[dict[str, bool], ...] = (
    {"hot": True},
    {},
    {"hot": True, "recorded": True},
    {"hot": True, "backward": True},
)


def _cases(op: str, pair: tuple[Any, Any], dtype: str, mib: int) -> list[Case]:
    rows = mib * MI // (4 if dtype == "f32" else 2) // N
    shape = (rows, 2 * N if op in GATED else N)
    return [
        Case(op, f"{mib} MiB {'hot' if way.get('hot') else 'cold'}", dtype, *pair, (shape,), (2.0,), **way)
        for way in WAYS
    ]


def hot_and_cold(device: str, quick: bool) -> list[Case]:
    """Every way for each op and size; a few more ops at one size."""
    cases = []
    for dtype, sizes in SIZES.items():
        for mib in (4,) if quick else sizes:
            for op, pair in (OPS | MORE if dtype == "f32" and mib == 4 else OPS).items():
                cases += _cases(op, pair, dtype, mib)
    return cases
