"""The softmax family with the signatures of ``torch.nn.functional``; dtypes and layouts as in ``activation``."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling as is_compiling

from .. import _C
from ..autograd import activation as grad
from ..ops.activation import PLAIN, SOFTMAX_KINDS
from ..ops.backends import fall_back, is_refusal, state, to_torch, watched, why_not_ours
from ._common import any_autocast, index, not_plain, wide_in_autocast

_TORCH_SOFTMAX: dict[str, Any] = {
    "softmax": torch.softmax,
    "log_softmax": torch.log_softmax,
    "softmin": lambda x, dim: torch.softmax(-x, dim),
}


def _softmax(input: Tensor, kind: str, dim: int | None, dtype: torch.dtype | None) -> Tensor:
    if dtype is None and type(dim) is int and state.native is _C and not is_compiling():
        out = grad.direct_softmax(input, dim, SOFTMAX_KINDS[kind])
        if out is not NotImplemented:
            return out
    return _long_softmax(input, kind, dim, dtype)


def _long_softmax(input: Tensor, kind: str, dim: int | None, dtype: torch.dtype | None) -> Tensor:
    if dtype is None and any_autocast():
        input = wide_in_autocast(input)
    if type(input) in PLAIN:
        if type(dim) is int and dtype is None and not watched():
            try:
                return grad.softmax(input, dim, kind)
            except (RuntimeError, NotImplementedError, IndexError, ValueError, TypeError) as error:
                if not is_refusal(error):  # explained below
                    raise
    else:
        torchs = getattr(torch.nn.functional, kind)
        other = not_plain(
            kind,
            (("input", input),),
            lambda: torchs(input, dim, dtype=dtype),
            partial(_softmax, input, kind, dim, dtype),
        )
        if other is not NotImplemented:
            return other
    n = input.dim()
    if dim is None:
        warnings.warn(f"neurokern.{kind}: dim is None: chosen by the number of dimensions, as torch does", stacklevel=4)
        dim = 0 if n in (0, 1, 3) else 1
    dim = index(kind, "dim", dim)
    if dtype is not None and dtype != input.dtype:
        if not isinstance(dtype, torch.dtype | type):
            raise TypeError(f"neurokern.{kind}: argument dtype is {dtype!r}, expected a torch.dtype")
        input = input.to(dtype)
    if not -max(n, 1) <= dim < max(n, 1):
        raise IndexError(f"neurokern.{kind}: argument dim is {dim}, expected between {-max(n, 1)} and {max(n, 1) - 1}")
    if watched() and (reason := why_not_ours(input)) is not None:
        return to_torch(kind, reason, lambda: _TORCH_SOFTMAX[kind](input, dim))
    try:
        return grad.softmax(input, dim + n if dim < 0 and n > 0 else dim, kind)
    except (RuntimeError, NotImplementedError) as error:
        return fall_back(kind, error, lambda: _TORCH_SOFTMAX[kind](input, dim), input)


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along dim, without overflow; ``dtype`` converts the input first.

    Raises:
        IndexError: dim out of range.
    """
    return _softmax(input, "softmax", dim, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """log(softmax(x)) along dim, without overflow. Errors as `softmax`."""
    return _softmax(input, "log_softmax", dim, dtype)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """softmax(-x) along dim. Errors as `softmax`."""
    return _softmax(input, "softmin", dim, dtype)
