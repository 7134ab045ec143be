"""Swapping a model's layers for ours and back, in place."""

from __future__ import annotations

from typing import TypeVar

import torch

from .. import nn
from . import hugging_face  # noqa: F401  (tells the table of transformers' layers)
from .convolution import why_not
from .fold import fold, unfold
from .layer_table import leave, register_layer, replaced, restored
from .report import report

M = TypeVar("M", bound=torch.nn.Module)

for _name in sorted(nn.NATIVE):
    if hasattr(torch.nn, _name):
        _is_convolution = issubclass(getattr(torch.nn, _name), torch.nn.modules.conv._ConvNd)
        register_layer(getattr(torch.nn, _name), getattr(nn, _name), unless=why_not if _is_convolution else None)
leave(
    torch.nn.modules.linear.NonDynamicallyQuantizableLinear,
    "never called: MultiheadAttention reads its parameters",
)


def patch(model: M, *, verbose: bool = False, fold_batch_norm: bool = False) -> M:
    """Run every layer of ``model`` that we have a kernel for on our kernels; returns the model.

    Patched are the torch.nn layers that `neurokern.nn.NATIVE` names, those of transformers that compute the same
    (Conv1D, activations, RMS norms), classes added by `register_layer`, and subclasses of all of them that inherit
    their forward, also parametrized or sharded by FSDP. `report` says what was not patched, and why.

    The modules stay the same objects, with their parameters, buffers, hooks and training mode; only the class changes.
    A patched torch.nn.TransformerEncoderLayer calls its layers instead of torch's fused kernel. Call `unpatch` before
    using code that looks for torch's exact classes (torch.ao.quantization skips ours).

    Args:
        model: changed in place.
        verbose: print the `report`.
        fold_batch_norm: let convolutions do the work of the batch norms right behind them in evaluation. Parameters,
            buffers and state_dict stay as they are; docs/convolution.md says which are found.

    Raises:
        TypeError: model is not a torch.nn.Module.
    """
    for module in _modules("patch", model):
        kind, _ = replaced(module)
        if kind is not None:
            module.__class__ = kind
    if fold_batch_norm:
        fold(model)
    if verbose:
        print(report(model))
    return model


def unpatch(model: M) -> M:
    """Give every patched layer its original class back; returns the model.

    Raises:
        TypeError: model is not a torch.nn.Module.
    """
    for module in _modules("unpatch", model):
        unfold(module)
        if (kind := restored(type(module))) is not type(module):
            module.__class__ = kind
    return model


def _modules(function: str, model: torch.nn.Module) -> list[torch.nn.Module]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"neurokern.{function}: argument model is a {type(model).__name__}, expected a torch.nn.Module")
    return list(model.modules())
