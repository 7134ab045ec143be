"""Where no kernel of ours can be: why, and torch's own op in its place. ``strict()`` makes that an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from . import choice
from .context import block, chosen, is_strict
from .trace import record, timed


@contextmanager
def strict() -> Iterator[None]:
    """Inside the block, a fallback to another backend or to torch is a RuntimeError, in the thread that enters it."""
    with block(strict=True):
        yield


_FLOATS = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))

_is_batch = torch._C._functorch.is_legacy_batchedtensor  # as torch.autograd.grad(is_grads_batched=True) makes them


def why_watched(*tensors: Any) -> str | None:
    """What follows the ops that torch runs and would not see a kernel of ours, or None."""
    if torch._C._are_functorch_transforms_active():
        return "a functorch transform (vmap, grad) wraps the tensors"
    if is_dynamo_compiling():
        return None
    if torch._C._is_tracing():
        return "torch.jit.trace records ops of torch"
    if any(isinstance(t, torch.Tensor) and _is_batch(t) for t in tensors):
        return "a batch of gradients has no kernel"
    if forward_ad._current_level >= 0 and any(
        isinstance(t, torch.Tensor) and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    ):
        return "forward-mode derivatives have no kernel"
    return None


def why_unknown(*tensors: Any) -> str | None:
    """Which kind of tensor has no kernel of ours, or None."""
    for t in tensors:
        if not isinstance(t, torch.Tensor):
            continue
        if t.dtype not in _FLOATS:
            return f"dtype {t.dtype} has no kernel"
        if t.layout is not torch.strided or t.is_nested:
            return f"layout {'nested' if t.is_nested else t.layout} has no kernel"
        if t.device.type not in ("cpu", "cuda"):
            return f"device {t.device.type} has no kernel"
        if t.device.type == "cuda" and (missing := choice.cuda_missing(t.device.index or 0)):
            return f"CUDA kernels can't run: {missing}"
    return None


def why_not_ours(op: str, *tensors: Any) -> str | None:
    """Why torch's own op is to run on these tensors, or None.

    Raises:
        RuntimeError: they have no kernel, and a backend was asked for by name.
    """
    if (reason := why_watched(*tensors)) is not None:
        return reason
    reason = why_unknown(*tensors)
    if reason is not None and (name := chosen()) != "auto":
        raise RuntimeError(f"neurokern.{op}: backend {name!r} was asked for, but {reason}")
    return reason


def to_torch(op: str, reason: str, torch_call: Callable[[], Any]) -> Any:
    """Run torch's own op, saying why; an error under ``strict()``."""
    if is_strict():
        raise RuntimeError(f"neurokern.{op}: would fall back to torch: {reason}")
    if is_dynamo_compiling():
        record(op, "torch", op, reason=f"{reason} (decided while compiling)")
        return torch_call()
    try:
        with timed(op, "torch", op, reason=reason):
            return torch_call()
    except Exception as error:
        if str(error).startswith("neurokern.") or type(error).__module__ != "builtins":
            raise
        raise type(error)(f"neurokern.{op}: {reason}, and torch says: {error}") from error
