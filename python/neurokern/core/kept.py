"""Copies that a compiler leaves alone: what a gradient needs of a tensor that somebody may write to before.

Inductor takes a clone for the tensor that it copies, and AOTAutograd lets what it saved of a graph's input be written
to unnoticed where that is a view.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .registry import library, register

_copied = register("copied(Tensor x) -> Tensor", lambda x: x.clone(), lambda x: torch.empty_like(x))


def _safe_from_writes(x: Tensor) -> Tensor:
    if not x._is_view():
        return x
    # a graph's input is a leaf, or stands in for what was computed before with a node that is never run
    is_input = x._base.is_leaf or type(x._base.grad_fn).__name__ == "Error"
    return _copied(x) if is_input else x


library.define("safe_from_writes(Tensor x) -> Tensor")
library.impl("safe_from_writes", _safe_from_writes, "CompositeImplicitAutograd")
safe_from_writes = torch.ops.neurokern.safe_from_writes  # a copy of a view of a graph's input, else x itself


class Copied(Function):
    """A copy of x, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.ops.neurokern.copied(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g
