"""Pooling's Triton kernels under the names of ``neurokern._C``, as in `triton`."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..kernels.triton import pooling as _pooling
from .triton_launch import Maybe, recorded

__all__ = [
    "avg_pool",
    "avg_pool_backward",
    "fractional_max_pool",
    "fractional_max_pool_backward",
    "fractional_max_pool_with_indices",
    "fractional_max_pool_with_indices_backward",
    "lp_pool",
    "lp_pool_backward",
    "max_pool",
    "max_pool_backward",
    "max_pool_with_indices",
    "max_pool_with_indices_backward",
    "max_unpool",
    "max_unpool_backward",
]


def _windows(x: Tensor, kind: str, kernel: Any, stride: Any, padding: Any, dilation: Any, y: Tensor) -> tuple[Any, ...]:
    """A pooling's kind of windows, their numbers for D, H and W, and how many dims it has."""
    n = int(kind[-2])
    sizes = [
        list(v) * (n // len(v)) if len(v) else [1] * n for v in (kernel, stride or kernel, padding or [0], dilation)
    ]
    dims = [(x.shape[i - n], y.shape[i - n], *(s[i] for s in sizes)) for i in range(n)]
    which = 1 if kind.startswith("adaptive") else 2 if kind.startswith("fractional") else 0
    return which, ((1, 1, 1, 1, 0, 1),) * (3 - n) + tuple(dims), n


def max_pool(y: Tensor, indices: Maybe, x: Tensor, *given: Any) -> None:
    """y = the maxima of windows, indices = their places."""
    windows = _windows(x, *given[:5], y)
    recorded("max_pool", _pooling.max_pool, y, indices, x, None, *windows)


max_pool_with_indices = max_pool


def fractional_max_pool(y: Tensor, indices: Maybe, x: Tensor, samples: Tensor, kind: str, kernel: Any, *_: Any) -> None:
    """y = the maxima of random windows, indices = their places."""
    windows = _windows(x, kind, kernel, [], [], [], y)
    recorded("fractional_max_pool", _pooling.max_pool, y, indices, x, samples, *windows)


fractional_max_pool_with_indices = fractional_max_pool


def max_pool_backward(gx: Tensor, g: Tensor, *given: Any) -> None:
    """The gradient of max_pool."""
    x, indices, *parameters = given[-9:]
    windows = _windows(x, *parameters[:5], g)
    recorded("max_pool_backward", _pooling.max_pool_backward, gx, g, indices, *windows)


max_pool_with_indices_backward = max_pool_backward


def fractional_max_pool_backward(gx: Tensor, g: Tensor, *given: Any) -> None:
    """The gradient of fractional_max_pool."""
    x, indices, kind, kernel, *_ = given[-6:]
    windows = _windows(x, kind, kernel, [], [], [], g)
    recorded("fractional_max_pool_backward", _pooling.max_pool_backward, gx, g, indices, *windows)


fractional_max_pool_with_indices_backward = fractional_max_pool_backward


def _average(kind: str, kernel: Any, stride: Any, padding: Any, *rest: Any) -> tuple[Any, tuple[Any, ...]]:
    return (kind, kernel, stride, padding, []), (rest[2], rest[3], 0.0, 1)


def avg_pool(y: Tensor, x: Tensor, *given: Any) -> None:
    """y = the averages of windows."""
    windows, more = _average(*given)
    recorded("avg_pool", _pooling.average, y, x, *_windows(x, *windows, y), *more)


def avg_pool_backward(gx: Tensor, g: Tensor, x: Tensor, *given: Any) -> None:
    """The gradient of avg_pool."""
    windows, more = _average(*given)
    recorded("avg_pool_backward", _pooling.average_backward, gx, g, None, None, *_windows(x, *windows, g), *more)


def lp_pool(y: Tensor, x: Tensor, kind: str, norm: float, kernel: Any, stride: Any, ceil_mode: bool) -> None:
    """y = the norms of windows."""
    which, windows, n = _windows(x, kind, kernel, stride, [], [], y)
    full = math.prod(w[2] for w in windows)
    recorded("lp_pool", _pooling.average, y, x, which, windows, n, True, None, norm, full)


def lp_pool_backward(
    gx: Tensor, g: Tensor, x: Tensor, y: Tensor, kind: str, norm: float, kernel: Any, stride: Any, ceil_mode: bool
) -> None:
    """The gradient of lp_pool."""
    which, windows, n = _windows(x, kind, kernel, stride, [], [], g)
    more = (which, windows, n, True, None, norm, math.prod(w[2] for w in windows))
    recorded("lp_pool_backward", _pooling.average_backward, gx, g, x, y, *more)


def max_unpool(y: Tensor, x: Tensor, indices: Tensor, kind: str, size: Any) -> None:
    """y = zeros, and x at its places."""
    recorded("max_unpool", _pooling.max_unpool, y, x, indices, int(kind[-2]))


def max_unpool_backward(gx: Tensor, g: Tensor, indices: Tensor, kind: str, size: Any, wants: Any) -> None:
    """The gradient of max_unpool."""
    recorded("max_unpool_backward", _pooling.max_unpool_backward, gx, g, indices, int(kind[-2]))
