"""Arguments that are no plain tensors: classes with functions of their own, tracers, classes that override nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.fx import Proxy
from torch.overrides import handle_torch_function

from ..backends.fall_back import to_torch
from .tensors import PLAIN

_WRAPS = Tensor.__torch_function__.__func__


def is_distributed(kind: type) -> bool:
    """Whether ``kind`` is DTensor, or a result that torch.distributed still waits for: they know registered ops."""
    return kind.__module__.startswith("torch.distributed.")


def _knows_ours(kind: type) -> bool:
    """Whether ``kind`` is a class of torch's that takes registered ops as it takes torch's: tracers, too."""
    return kind.__module__.startswith("torch._subclasses") or is_distributed(kind)


def overrides_nothing(kind: type) -> bool:
    """Whether ``kind`` is a class of the user's that differs from Tensor in its name alone, as far as ops go."""
    return issubclass(kind, Tensor) and kind not in PLAIN and not _knows_ours(kind)


def upon_plain(ours: partial[Any]) -> Any:
    """Our function of the tensors as plain ones, and the result of their class again.

    Done around the function: within its autograd.Function, the change of class would make the output a view that
    nothing may write to.
    """

    def run(*args: Any, **keywords: Any) -> Any:
        given = [a for a in (*args, *keywords.values()) if overrides_nothing(type(a))]
        plain = {id(a): a.as_subclass(Tensor) for a in given}
        out = ours.func(*(plain.get(id(a), a) for a in args), **{k: plain.get(id(a), a) for k, a in keywords.items()})
        return next((a for a in given if plain[id(a)] is out), out)  # in place

    wrapping = [
        a
        for a in (*ours.args, *ours.keywords.values())
        if overrides_nothing(type(a)) and getattr(type(a).__torch_function__, "__func__", None) is _WRAPS
    ]
    if not wrapping:
        return run(*ours.args, **ours.keywords)
    return handle_torch_function(run, wrapping, *ours.args, **ours.keywords)


def _overrides(a: Any) -> bool:
    """Whether a has a class that knows torch's functions or ops by themselves, and none of ours."""
    kind = type(a)
    if kind in PLAIN or _knows_ours(kind):
        return False
    if not issubclass(kind, Tensor):
        return hasattr(kind, "__torch_function__")
    function = getattr(kind.__torch_function__, "__func__", kind.__torch_function__)
    known = (Tensor.__torch_function__.__func__, torch._C._disabled_torch_function_impl)
    return function not in known or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__


def not_plain(op: str, arguments: list[tuple[str, Any, bool]], by_torch: Callable[[], Any], ours: partial[Any]) -> Any:
    """For arguments that are no plain tensors: torch's own function where a class overrides it, else a TypeError.

    ``arguments``: their names, themselves, and whether each may be None.
    Returns NotImplemented when all are tensors after all, and the op can go on. ``ours`` is the whole call, which
    torch.fx records.
    """
    for _, a, _ in arguments:
        if isinstance(a, Proxy):
            return handle_torch_function(ours.func, (a,), *ours.args, **ours.keywords)
        if _overrides(a):
            return to_torch(op, f"{type(a).__name__} overrides what torch's ops do", by_torch)
    for name, a, optional in arguments:
        if not (isinstance(a, Tensor) or (a is None and optional)):
            raise TypeError(f"neurokern.{op}: argument {name} is a {type(a).__name__}, expected a torch.Tensor")
    named = not is_dynamo_compiling() and any(overrides_nothing(type(a)) for _, a, _ in arguments)
    return upon_plain(ours) if named else NotImplemented
