"""layer_norm and rms_norm over the last dimensions as ops, with their statistics for the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.dims import of
from ..core.op import op

_F = torch.nn.functional
Shape = Sequence[int]


def _wide(t: Tensor) -> Tensor:
    """In float32 at least: several roundings of 16 bits lie within a formula."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def _fake(x: Tensor, shape: Shape, statistics: int) -> tuple[Tensor, ...]:
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return y, *(x.new_empty(x.shape[: x.dim() - len(shape)], dtype=dtype) for _ in range(statistics))


def _gradients_fake(x: Tensor, shape: Shape, wants: Sequence[bool]) -> tuple[Tensor | None, ...]:
    gx = torch.empty_like(x, memory_format=torch.contiguous_format) if wants[0] else None
    return gx, *(x.new_empty(shape) if w else None for w in wants[1:])


def _gradients(
    g: Tensor, x: Tensor, weight: Tensor | None, shape: Shape, eps: float, centred: bool, wants: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The statistics are made again, as functions of x that can be differentiated once more."""
    dims = tuple(range(-len(shape), 0))

    def mean(t: Tensor) -> Tensor:
        return t.mean(dims, keepdim=True)

    xw, gw = _wide(x), _wide(g)
    centre = xw - mean(xw) if centred else xw
    rstd = (mean(centre.square()) + eps).rsqrt()
    normal = centre * rstd
    gy = gw if weight is None else gw * _wide(weight)
    made: list[Tensor | None] = [None] * len(wants)
    if wants[0]:
        along = gy - normal * mean(gy * normal)
        made[0] = (rstd * (along - mean(gy) if centred else along)).to(x.dtype)
    if wants[1]:
        made[1] = (gw * normal).sum_to_size(shape).to(x.dtype)
    if len(wants) > 2 and wants[2]:
        made[2] = gw.sum_to_size(shape).to(x.dtype)
    return tuple(made)


def _layer_norm_by_torch(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Shape, eps: float) -> Tensor:
    return _F.layer_norm(x, shape, weight, bias, eps)


def _rms_norm_by_torch(x: Tensor, weight: Tensor | None, shape: Shape, eps: float) -> Tensor:
    return _F.rms_norm(x, shape, weight, eps)


def _dims(x: Shape, shape: Shape, statistics: int) -> tuple[list[Any], list[Any]]:
    """Only the leading dims may be cut."""
    rows, whole = of(x)[: len(x) - len(shape)], [None] * len(shape)
    return [rows + whole, whole, whole], [rows + whole, *[rows] * statistics]


def _layer_norm_recorded_by_torch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Shape, eps: float
) -> tuple[Tensor, ...]:
    y, *statistics = torch.native_layer_norm(x, shape, weight, bias, eps)
    return y, *(_wide(t).reshape(x.shape[: x.dim() - len(shape)]) for t in statistics)


def _rms_norm_recorded_by_torch(x: Tensor, weight: Tensor | None, shape: Shape, eps: float) -> tuple[Tensor, ...]:
    rstd = (_wide(x).square().mean(tuple(range(-len(shape), 0))) + eps).rsqrt()
    return _rms_norm_by_torch(x, weight, shape, eps), rstd


layer_norm = op(
    "layer_norm(Tensor input, Tensor? weight, Tensor? bias, int[] normalized_shape, float eps)"
    " -> (Tensor y, Tensor mean, Tensor rstd)",
    fake=lambda x, weight, bias, shape, eps: _fake(x, shape, 2),
    returns=1,
    saves="input weight mean rstd",
    gradients=lambda g, x, weight, mean, rstd, shape, eps, wants: _gradients_fake(x, shape, wants),
    formula=lambda g, x, weight, mean, rstd, shape, eps, wants: _gradients(g, x, weight, shape, eps, True, wants),
    torch=_layer_norm_by_torch,
    torch_recorded=_layer_norm_recorded_by_torch,
    dims=lambda y, x, weight, bias, shape, *_: _dims(x, shape, 2),
    autocast="float32",
    same_dtype=True,
)
rms_norm = op(
    "rms_norm(Tensor input, Tensor? weight, int[] normalized_shape, float eps) -> (Tensor y, Tensor rstd)",
    fake=lambda x, weight, shape, eps: _fake(x, shape, 1),
    returns=1,
    saves="input weight rstd",
    gradients=lambda g, x, weight, rstd, shape, eps, wants: _gradients_fake(x, shape, wants),
    formula=lambda g, x, weight, rstd, shape, eps, wants: _gradients(g, x, weight, shape, eps, False, wants),
    torch=_rms_norm_by_torch,
    torch_recorded=_rms_norm_recorded_by_torch,
    dims=lambda y, x, weight, shape, *_: _dims(x, shape, 1),
    autocast="float32",
    same_dtype=True,
)
