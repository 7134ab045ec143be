"""Normalizations with the signatures of ``torch.nn.functional``; dtypes and layouts as in ``activation``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.normalization import layer_norm as _layer_norm
from ..ops.normalization import rms_norm as _rms_norm

__all__ = ["layer_norm", "rms_norm"]


def layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-05,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions. Source: Ba et al. 2016.

    Args:
        input: [..., *normalized_shape].
        normalized_shape: the sizes that mean and variance are taken over.
        weight, bias: normalized_shape, with the dtype of input (others go to torch).
        eps: added to the variance.

    Raises:
        RuntimeError: sizes, dtypes or devices do not match.
    """
    return _layer_norm(input, weight, bias, normalized_shape, eps)


def rms_norm(
    input: Tensor, normalized_shape: list[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x ** 2) + eps) * weight over the last dimensions. Source: Zhang and Sennrich 2019.

    Args:
        input: [..., *normalized_shape].
        normalized_shape: the sizes that the mean is taken over.
        weight: normalized_shape, with the dtype of input (others go to torch).
        eps: None: the machine epsilon of the dtype it is computed in, float32's for 16 bits.

    Raises:
        RuntimeError: sizes, dtypes or devices do not match.
        ValueError: input has fewer dimensions than normalized_shape.
    """
    if eps is None:
        eps = 2.0**-52 if getattr(input, "dtype", None) == torch.float64 else 2.0**-23
    return _rms_norm(input, weight, normalized_shape, eps)
