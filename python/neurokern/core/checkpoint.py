"""Selective checkpoints whose policy names torch's ops: one that saves ``aten.mm`` saves our products, too.

A policy is asked of each op that runs. Ours runs as one op; then the policy is asked of those that torch would run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from .decompose import decompositions
from .on_import import on_import
from .tensors import above_autograd


class _Names(TorchDispatchMode):
    """Notes the ops that run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Any, dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _number(size: Any) -> int:
    """A size, or the example of one that torch.compile keeps symbolic."""
    return size if isinstance(size, int) else size.node.hint or 2


def _key(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        return torch.Size, tuple(map(_number, arg.shape)), tuple(map(_number, arg.stride())), arg.dtype
    return tuple(arg) if isinstance(arg, list) else arg


@lru_cache(256)
def _by_torch(overload: Any, keys: tuple[Any, ...]) -> list[tuple[Any, Any, dict[str, Any]]]:
    """The ops that torch would run in the place of ours, with their arguments, which have no data."""

    def made(key: Any) -> Any:
        if isinstance(key, tuple) and key and key[0] is torch.Size:
            return torch.empty_strided(key[1], key[2], dtype=key[3], device="meta")
        return list(key) if isinstance(key, tuple) else key

    with _disable_current_modes(), above_autograd(), torch.no_grad(), _Names() as names:
        decompositions()[overload](*map(made, keys))
    return names.seen


def _with_torchs_names(policy: Callable[..., Any], kinds: Any) -> Callable[..., Any]:
    recomputes = (False, kinds.MUST_RECOMPUTE, kinds.PREFER_RECOMPUTE)

    @wraps(policy)
    def asked(context: Any, func: Any, *args: Any, **keywords: Any) -> Any:
        ours = getattr(func, "namespace", None) == "neurokern"
        if ours and func._schema.is_mutable:
            return kinds.MUST_RECOMPUTE  # nothing that it returns could be saved instead of what it writes
        answer = policy(context, func, *args, **keywords)
        if not ours or answer not in recomputes:
            return answer
        for other, its_args, its_keywords in _by_torch(func, tuple(map(_key, args))):
            found = policy(context, other, *its_args, **its_keywords)  # all are asked: policies count
            answer = answer if found in recomputes else found
        return answer

    return asked


def _tell(module: ModuleType) -> None:
    mode = module._CachingTorchDispatchMode
    make = mode.__init__

    @wraps(make)
    def make_with_torchs_names(self: Any, policy_fn: Callable[..., Any], *args: Any, **keywords: Any) -> None:
        make(self, _with_torchs_names(policy_fn, module.CheckpointPolicy), *args, **keywords)

    mode.__init__ = make_with_torchs_names


on_import("torch.utils.checkpoint", _tell)
