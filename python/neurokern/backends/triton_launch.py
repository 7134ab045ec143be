"""What every launch of a Triton kernel has in common: the trace, its times, the ids of activations."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import _C
from ..kernels.triton._functions import ACTIVATIONS
from .trace import record

Maybe = Tensor | None

IDS = {row[0]: i for i, row in enumerate(ACTIVATIONS)}


def recorded(op: str, function: Any, *args: Any, **options: Any) -> None:
    times = _C.trace_times()
    if times:
        _wait(args)
        start = time.perf_counter()
    function(*args, record=partial(record, op, "triton"), **options)
    if times:
        _wait(args)
        _C.trace_took(time.perf_counter() - start)


def _wait(args: Iterable[Any]) -> None:
    """For what a GPU still has to do, of one of the tensors among the arguments."""
    device = next(a.device for a in args if isinstance(a, Tensor))
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rounded(x: Tensor, act: str, p0: float, derivative: bool = True) -> float:
    """torch compares with lambd as a number of x's dtype; softshrink does so in its derivative alone."""
    rounds = act == "hardshrink" or (derivative and act == "softshrink")
    return torch.tensor(p0, dtype=x.dtype).item() if rounds else p0
