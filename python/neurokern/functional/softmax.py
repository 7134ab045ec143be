"""The softmax family with the signatures of ``torch.nn.functional``; dtypes and layouts as in ``activation``."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..ops.softmax import softmax as _softmax

__all__ = ["log_softmax", "softmax", "softmin"]


def _converted(input: Tensor, dim: int | None, kind: str, dtype: torch.dtype | None) -> Tensor:
    if dim is None:
        warnings.warn(f"neurokern.{kind}: dim is None: chosen by the number of dimensions, as torch does", stacklevel=4)
        dim = 0 if input.dim() in (0, 1, 3) else 1
    if dtype is not None and dtype != input.dtype:
        if not isinstance(dtype, torch.dtype | type):
            raise TypeError(f"neurokern.{kind}: argument dtype is {dtype!r}, expected a torch.dtype")
        input = input.to(dtype)
    return _softmax(input, dim, kind)


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along dim, without overflow; ``dtype`` converts the input first.

    Raises:
        IndexError: dim out of range.
    """
    if dim is None or dtype is not None:
        return _converted(input, dim, "softmax", dtype)
    return _softmax(input, dim, "softmax")


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """log(softmax(x)) along dim, without overflow. Errors as `softmax`."""
    if dim is None or dtype is not None:
        return _converted(input, dim, "log_softmax", dtype)
    return _softmax(input, dim, "log_softmax")


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """softmax(-x) along dim. Errors as `softmax`."""
    if dim is None or dtype is not None:
        return _converted(input, dim, "softmin", dtype)
    return _softmax(input, dim, "softmin")
