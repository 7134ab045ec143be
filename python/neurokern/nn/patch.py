"""Swapping a model's layers for ours and back, in place."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch.nn.utils.parametrize import is_parametrized

from .. import nn

M = TypeVar("M", bound=torch.nn.Module)


def _pairs() -> dict[type, type]:
    """torch's class -> ours, for the layers that both have."""
    return {getattr(torch.nn, n): getattr(nn, n) for n in nn.NATIVE if hasattr(torch.nn, n)}


def _swap(model: M, classes: dict[type, type]) -> M:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"neurokern.patch: argument model is a {type(model).__name__}, expected a torch.nn.Module")
    for module in model.modules():
        kind = type(module)
        if is_parametrized(module) and kind.__base__ in classes:
            # torch made a class for this one module: the same again upon the other base
            own = {n: v for n, v in vars(kind).items() if n not in ("__dict__", "__weakref__")}
            module.__class__ = type(kind.__name__, (classes[kind.__base__],), own)
        elif kind in classes:
            module.__class__ = classes[kind]
    return model


def _scriptable(layer: M) -> M:
    """What torch.jit.script compiles, and puts into the place of the layer: torch's own, of the same parameters."""
    theirs = next((t for t, ours in _pairs().items() if ours is type(layer)), None)
    if theirs is not None:
        layer = copy.copy(layer)
        layer.__class__ = theirs
    return layer


for _ours in _pairs().values():
    _ours.__prepare_scriptable__ = _scriptable


def patch(model: M) -> M:
    """Let every layer of ``model`` that torch and we both have run on our kernels; returns the model.

    The modules stay the same objects, with their parameters, buffers, hooks and training mode; only the class changes.
    Subclasses of torch's layers with a forward of their own are left alone; parametrized layers are none. `unpatch`
    undoes it, as it must be before what looks for torch's very classes (torch.ao.quantization passes over ours).

    Raises:
        TypeError: model is not a torch.nn.Module.
    """
    return _swap(model, _pairs())


def unpatch(model: M) -> M:
    """Give every layer that is ours its torch.nn class back; returns the model."""
    return _swap(model, {ours: theirs for theirs, ours in _pairs().items()})
