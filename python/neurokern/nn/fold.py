"""Batch norms in evaluation as part of the convolutions before them: which they are, and what the weights become.

Parameters and buffers stay where they are and as they are. A convolution with a `Folded` computes with scaled weights
while its batch norm evaluates, and the batch norm then returns its input; while it trains, both are themselves.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from ..core.tensors import PLAIN, is_compiling, recording
from .convolution import Conv1d, Conv2d, Conv3d
from .layer_table import Made, as_theirs, made_of

_KINDS = ((Conv1d, torch.nn.BatchNorm1d), (Conv2d, torch.nn.BatchNorm2d), (Conv3d, torch.nn.BatchNorm3d))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


# ---- running ----


class Folded:
    """A convolution with the batch norm behind it, and the weights made of both.

    Only these two modules, each where it was in its parent: copies are two layers, as before.
    """

    def __init__(self, convolution: Any, norm: Any, model: Module) -> None:
        self.convolution, self.norm = convolution, norm
        owners = {id(m): (parent, name) for parent in model.modules() for name, m in parent._modules.items()}
        self._places = [(*owners[id(m)], m) for m in (convolution, norm)]
        self._kept: _Kept | None = None

    def __reduce__(self) -> Any:
        return _nothing, ()

    def holds(self) -> bool:
        """Whether the two are still one: neither was replaced or given back, and the batch norm does not train."""
        return (
            not self.norm.training
            and vars(self.convolution).get("_folded") is self
            and type(self.norm).forward is _passed
            and all(parent._modules.get(name) is m for parent, name, m in self._places)
        )

    def into(self, convolution: Module, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with which the convolution gives what the batch norm would make of its result."""
        norm = self.norm
        if convolution is not self.convolution or not self.holds():
            return weight, bias
        if is_compiling() or torch._C._is_tracing():
            return _scaled(weight, bias, norm)
        of = (weight, bias, norm.eps, *norm._parameters.values(), *norm._buffers.values())
        if recording(*of):
            return _scaled(weight, bias, norm)
        if self._kept is None or not self._kept.are(of):
            made = _scaled(weight, bias, norm)
            if torch._C._are_functorch_transforms_active() or not _can_be_kept(of):
                return made
            self._kept = _Kept(of, made)
        return self._kept.made


class _Kept:
    """Scaled weights, for as long as what they were made of stays the same.

    torch counts every write, but those to ``.data`` and those of a batch norm that trains to its mean and variance;
    that one counts its batches.
    """

    def __init__(self, of: Sequence[Any], made: tuple[Tensor, Tensor]) -> None:
        # aliases: as long as they are here, their memory is nobody else's
        self._before = [(t, t.detach(), t._version) if isinstance(t, Tensor) else (t, None, 0) for t in of]
        self.made = made

    def are(self, of: Sequence[Any]) -> bool:
        """Whether these are what the weights were made of, unchanged."""
        if len(of) != len(self._before):
            return False
        for t, (before, alias, version) in zip(of, self._before, strict=True):
            if t is not before:
                return False
            if alias is not None and (t._version != version or t.data_ptr() != alias.data_ptr()):
                return False
        return True


def _can_be_kept(of: Sequence[Any]) -> bool:
    """Whether the tensors have memory, and torch counts the writes to it."""
    return all(type(t) in PLAIN and not t.is_inference() for t in of if isinstance(t, Tensor))


def _nothing() -> None:
    """What copies and pickles have of a `Folded`."""


def _scaled(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    mean, var = norm.running_mean, norm.running_var
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    scale = (var.to(wide) + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.to(wide)
    shift = -mean.to(wide) if bias is None else bias.to(wide) - mean.to(wide)
    shift = shift * scale if norm.bias is None else torch.addcmul(norm.bias.to(wide), shift, scale)
    made = weight.to(wide) * scale.view(-1, *[1] * (weight.dim() - 1))
    return made.to(weight.dtype), shift.to(weight.dtype)


def _passed(self: Any, input: Tensor) -> Tensor:
    """The forward of a batch norm that is folded."""
    if self._folded is None or not self._folded.holds():
        return _BatchNorm.forward(self, input)
    self._check_input_dim(input)
    return input


# ---- folding and unfolding ----


def _folded_class(kind: type) -> type:
    for sub in kind.__subclasses__():
        if made_of(sub) == (kind, _passed):
            return sub
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    methods = {"forward": _passed, "__reduce_ex__": _reduced, "__prepare_scriptable__": as_theirs}
    made = type(kind.__name__, (kind,), {**own, **methods, "_folded": None})
    made._neurokern_made = Made(kind, _passed)
    return made


def _reduced(self: Any, protocol: Any) -> Any:
    """Pickled and copied as the batch norm that it was."""
    made = made_of(type(self))
    if made is None:  # a class upon this one
        return super(Module, self).__reduce_ex__(protocol)
    return (_empty, (made.theirs,), *made.theirs.__reduce_ex__(self, max(protocol, 2))[2:])


def _empty(kind: type) -> Any:
    return kind.__new__(kind)


def fold(model: Module) -> None:
    """Fold each batch norm of ``model`` that surely comes right behind a convolution of ours, and nothing else does."""
    for convolution, norm in _pairs(model):
        convolution._folded = norm._folded = Folded(convolution, norm, model)
        norm.__class__ = _folded_class(type(norm))


def unfold(module: Module) -> None:
    """Let a layer forget what it was folded with. The class of a batch norm is given back as that of every layer."""
    vars(module).pop("_folded", None)


def is_folded(module: Module) -> bool:
    """Whether ``module`` is a batch norm whose work its convolution does in evaluation."""
    return type(module).forward is _passed


# ---- finding ----


def _pairs(model: Module) -> list[tuple[Any, Any]]:
    places = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    found: dict[int, tuple[Any, Any]] = {}
    for parent in model.modules():
        for convolution, norm in _behind_one_another(parent):
            if _fits(convolution, norm) and places[id(convolution)] == places[id(norm)] == 1:
                found[id(norm)] = convolution, norm
    return list(found.values())


def _fits(convolution: Any, norm: Any) -> bool:
    if not any(isinstance(convolution, c) and isinstance(norm, n) for c, n in _KINDS):
        return False
    kind = next(c for c, _ in _KINDS if isinstance(convolution, c))
    return (
        type(convolution)._conv_forward is kind._conv_forward
        and type(convolution).forward is kind.forward
        and type(norm).forward is _BatchNorm.forward
        and all(t is not None for t in norm._buffers.values())
        and norm.num_features == convolution.out_channels
        and isinstance(convolution._parameters.get("weight"), Tensor)
        and not any(is_parametrized(m) for m in (convolution, norm))
        and not any(getattr(m, hooks) for m in (convolution, norm) for hooks in _HOOKS)
        and all("forward" not in vars(m) for m in (convolution, norm))
    )


def _behind_one_another(parent: Module) -> Iterator[tuple[Any, Any]]:
    """The modules that ``parent`` calls each on the result of the one before, which it needs for nothing else."""
    if type(parent).forward is torch.nn.Sequential.forward:
        layers = list(parent)
        yield from pairwise(layers)
    elif any(isinstance(m, _BatchNorm) for m in parent.modules()) and next(parent.children(), None) is not None:
        traced = [_traced(parent, given) for given in (False, True)]
        yield from [pair for pair in traced[0] if pair in traced[1]]


class _Tracer(torch.fx.Tracer):
    """Looks into the forward of one module: all that it calls are leaves."""

    def is_leaf_module(self, module: Module, name: str) -> bool:
        return True


def _traced(parent: Module, defaults: bool) -> list[tuple[Any, Any]]:
    """The pairs by torch.fx, of a forward that is given everything, or what has no default; none where it decides by
    values, as fx can't follow it."""
    given = inspect.signature(parent.forward).parameters.values()
    fixed = {p.name: p.default for p in given if p.default is not p.empty} if defaults else {}
    training, parent.training = parent.training, False
    try:
        graph = _Tracer().trace(parent, fixed)
    except Exception:  # whatever their code raises when it is given proxies
        return []
    finally:
        parent.training = training
    calls = [n for n in graph.nodes if n.op == "call_module"]
    times = Counter(n.target for n in calls)
    return [
        (parent.get_submodule(n.target), parent.get_submodule(user.target))
        for n in calls
        for user in n.users
        if len(n.users) == 1
        and user.op == "call_module"
        and user.args == (n,)
        and not user.kwargs
        and times[n.target] == times[user.target] == 1
    ]
