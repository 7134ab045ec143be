"""Classes of tensors that override nothing: our functions do with them what `Tensor.__torch_function__` does."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function

from ..ops.activation import PLAIN

_WRAPS = Tensor.__torch_function__.__func__


def overrides_nothing(kind: type) -> bool:
    """Whether ``kind`` is a class of the user's that differs from Tensor in its name alone, as far as ops go."""
    return issubclass(kind, Tensor) and kind not in PLAIN and not kind.__module__.startswith("torch._subclasses")


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
