"""The softmax family as an op: softmax, log_softmax and softmin along one dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.dims import of, whole
from ..core.op import op


def _contiguous(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _gradient(g: Tensor, y: Tensor, dim: int, kind: str) -> Tensor:
    """y (g - sum(g y)) for softmax, its negative for softmin, g - exp(y) sum(g) for log_softmax."""
    dtype = y.dtype
    # several roundings lie between here and the second derivative: in float32 at least
    g, y = (t if dtype == torch.float64 else t.float() for t in (g, y))
    log = kind == "log_softmax"
    gx = g - y.exp() * g.sum(dim, keepdim=True) if log else y * (g - (g * y).sum(dim, keepdim=True))
    return (-gx if kind == "softmin" else gx).to(dtype)


# the output is all that the gradient needs
softmax = op(
    "softmax(Tensor input, int dim, str kind) -> Tensor y",
    fake=_contiguous,
    saves="y",
    gradients=lambda g, y, *_: _contiguous(y),
    formula=_gradient,
    torch=lambda x, dim, kind: getattr(torch.nn.functional, kind)(x, dim),
    label="kind",
    autocast="float32",
    dims=lambda y, x, dim, kind: ([names := whole(of(x, y), dim)], [names]),
)
