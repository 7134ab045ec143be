"""Swapping a model's layers for ours and back, in place."""

from __future__ import annotations

from typing import TypeVar

import torch

from .. import nn

M = TypeVar("M", bound=torch.nn.Module)


def _pairs() -> dict[type, type]:
    """torch's class -> ours, for the layers that both have."""
    return {getattr(torch.nn, n): getattr(nn, n) for n in nn.NATIVE if hasattr(torch.nn, n)}


def _swap(model: M, classes: dict[type, type]) -> M:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"neurokern.patch: argument model is a {type(model).__name__}, expected a torch.nn.Module")
    for module in model.modules():
        ours = classes.get(type(module))
        if ours is not None:
            module.__class__ = ours
    return model


def patch(model: M) -> M:
    """Let every layer of ``model`` that torch and we both have run on our kernels; returns the model.

    The modules stay the same objects, with their parameters, buffers, hooks and training mode; only the class changes.
    Subclasses of torch's layers with a forward of their own are left alone. `unpatch` undoes it.

    Raises:
        TypeError: model is not a torch.nn.Module.
    """
    return _swap(model, _pairs())


def unpatch(model: M) -> M:
    """Give every layer that is ours its torch.nn class back; returns the model."""
    return _swap(model, {ours: theirs for theirs, ours in _pairs().items()})
