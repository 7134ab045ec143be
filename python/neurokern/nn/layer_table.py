"""Which class's layers run on which class of ours: one table for torch's, other packages' and the user's own.

A class is named by itself or, so that nobody has to import it, as "package.module.Class". Its subclasses are taken
with it where they have its forward: they get a class made of theirs and ours, so that isinstance still holds.
"""

from __future__ import annotations

import copy
import copyreg
import types
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch.nn import Module
from torch.nn.utils.parametrize import type_before_parametrizations

M = TypeVar("M", bound=Module)
Reason = Callable[[Module], str | None]


class Entry(NamedTuple):
    """What takes the place of a class: a class of ours or a forward, and what says why a module is left alone."""

    ours: type | Callable[..., Any] | None  # None: never taken, `unless` says why
    unless: Reason | None = None


class Made(NamedTuple):
    """What a class that was made here was made of."""

    theirs: type
    ours: Any


TABLE: dict[type | str, Entry] = {}
FINDERS: list[Callable[[type], Entry | None]] = []  # for families of classes that no list can name


def _called(kind: object) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)


def register_layer(
    theirs: type[Module] | str,
    ours: type[Module] | Callable[..., Any] | None = None,
    *,
    unless: Reason | None = None,
    replace: bool = False,
) -> Any:
    """Let `neurokern.patch` replace layers of class ``theirs``, and of subclasses that inherit its forward.

        neurokern.register_layer(TheirNorm, OurNorm)      # a class: its methods go before theirs
        neurokern.register_layer(TheirNorm, our_forward)  # a function (self, input): replaces only the forward

        @neurokern.register_layer("their_package.layers.Norm")  # need not be imported
        def forward(self, input):
            return F.rms_norm(input, input.shape[-1:], self.weight, self.eps)

    The modules stay the same objects, with the attributes that ``theirs`` gave them: the ``__init__`` of ``ours`` does
    not run. In a class, ``super().forward`` is that of ``theirs``.

    Args:
        theirs: a subclass of torch.nn.Module, or its name "package.module.Class".
        ours: a class or a forward; None: returns a decorator.
        unless: (module) -> the reason to skip this one, which `neurokern.report` shows; None: patch it.
        replace: replace an existing registration of theirs.

    Returns:
        ours, or the decorator.

    Raises:
        TypeError: theirs is not a module class, ours neither a class nor a function, or unless not a function.
        ValueError: theirs is registered already, or is a name without a dot.
    """
    if isinstance(theirs, str):
        if not all(part.isidentifier() for part in theirs.split(".")) or "." not in theirs:
            raise ValueError(
                f"neurokern.register_layer: argument theirs is {theirs!r}, expected 'package.module.Class'"
            )
    elif not (isinstance(theirs, type) and issubclass(theirs, Module)) or theirs is Module:
        raise TypeError(
            f"neurokern.register_layer: argument theirs is {theirs!r}, "
            "expected a subclass of torch.nn.Module or its name"
        )
    if unless is not None and not callable(unless):
        raise TypeError(f"neurokern.register_layer: argument unless is {unless!r}, expected a function of a module")
    if ours is None:
        return lambda given: register_layer(theirs, _layer(given), unless=unless, replace=replace)
    _layer(ours)
    if ours is theirs:
        raise ValueError(f"neurokern.register_layer: argument ours is {_called(theirs)} itself, expected another class")
    if (entry := _lookup(theirs)) is not None and entry.ours is not None and not replace:
        raise ValueError(
            f"neurokern.register_layer: {_called(theirs)} has a layer already; pass replace=True to put another there"
        )
    unregister_layer(theirs)
    TABLE[theirs] = Entry(ours, unless)
    if isinstance(ours, type) and isinstance(theirs, type) and issubclass(ours, theirs):
        ours.__prepare_scriptable__ = as_theirs
    return ours


def _layer(ours: Any) -> Any:
    if isinstance(ours, Module) or not callable(ours):
        raise TypeError(
            f"neurokern.register_layer: argument ours is {ours!r}, expected a class with a forward, or a function"
        )
    if isinstance(ours, type) and not hasattr(ours, "forward"):
        raise TypeError(f"neurokern.register_layer: argument ours is {ours!r}, which has no forward")
    return ours


def unregister_layer(theirs: type[Module] | str) -> None:
    """Remove the registration of ``theirs``, if there is one. Patched modules stay patched until `unpatch`."""
    TABLE.pop(theirs, None)
    if isinstance(theirs, type):
        TABLE.pop(_called(theirs), None)


def leave(theirs: type[Module] | str, reason: str) -> None:
    """Let `neurokern.report` say why layers of a class are never patched."""
    TABLE[theirs] = Entry(None, lambda module: reason)


def _lookup(kind: type | str) -> Entry | None:
    if kind in TABLE or not isinstance(kind, type):
        return TABLE.get(kind)
    found = TABLE.get(_called(kind))
    return found or next((entry for find in FINDERS if (entry := find(kind)) is not None), None)


def _registered(kind: type) -> tuple[type, Entry] | None:
    """The nearest class of the table that ``kind`` is or derives from, and its entry."""
    for base in kind.__mro__:
        if (entry := _lookup(base)) is not None:
            return base, entry
    return None


def made_of(kind: type) -> Made | None:
    """What ``kind`` was made of, where it was made here; a subclass of such a class was not."""
    return vars(kind).get("_neurokern_made")


# ---- classes that others make for single modules ----


def _wrapped(kind: type) -> int | None:
    """Which of its bases is the layer's class, where torch made ``kind`` around one: parametrized, or sharded."""
    if vars(kind).get("_neurokern_made") is None:
        if kind.__name__.startswith("Parametrized") and "__getstate__" in vars(kind) and len(kind.__bases__) == 1:
            return 0
        if len(kind.__bases__) == 2 and kind.__bases__[0].__module__.startswith("torch.distributed."):
            return 1
    return None


def _rewrapped(kind: type, index: int, base: type, mark: bool = False) -> type:
    """The class that torch made, upon another base; marked, `restored` gives back ``kind`` itself."""
    own = {n: v for n, v in vars(kind).items() if n not in ("__dict__", "__weakref__")}
    if mark:
        own["_neurokern_made"] = Made(kind, None)
    bases = (*kind.__bases__[:index], base, *kind.__bases__[index + 1 :])
    return type(kind)(kind.__name__, bases, own)


# ---- taking and giving back ----


def _reduced(self: Any, protocol: Any) -> Any:
    """Pickled and copied as a module of their class, which is made into one of ours again."""
    made = made_of(type(self))
    if made is None:  # a class upon ours
        return super(Module, self).__reduce_ex__(protocol)
    reduced = made.theirs.__reduce_ex__(self, max(protocol, 2))
    ordinary = isinstance(reduced, tuple) and reduced[0] is copyreg.__newobj__
    return (_new, (made.theirs,), *reduced[2:]) if ordinary else reduced


def _new(kind: type) -> Any:
    found = _registered(kind)
    if found is not None and found[1].ours is not None:
        kind = _made(kind, *found)
    return kind.__new__(kind)


def as_theirs(layer: M) -> M:
    """What torch.jit.script compiles, and puts into the place of the layer: theirs, of the same parameters."""
    theirs = restored(type(layer))
    if theirs is not type(layer):
        layer = copy.copy(layer)
        layer.__class__ = theirs
        vars(layer)["_modules"] = layer._modules.copy()  # torch replaces those within in it
    return layer


def _made(kind: type, base: type, entry: Entry) -> type:
    """The class of a module of ``kind``, whose forward is that of ``base``, once it is taken."""
    ours = entry.ours
    above = isinstance(ours, type) and issubclass(ours, base)
    if above and kind is base and _is_of_this_package(ours):
        return ours  # the class that users know by its name
    for sub in (ours if isinstance(ours, type) and issubclass(ours, kind) else kind).__subclasses__():
        if made_of(sub) == (kind, ours):
            return sub
    own = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": _reduced,
        "__prepare_scriptable__": as_theirs,
    }
    if not isinstance(ours, type):
        own["forward"] = ours
        bases = (kind,)
    else:  # ours above base: what kind has of its own goes before it
        bases = (ours,) if issubclass(ours, kind) else (kind, ours) if above else (ours, kind)
    made = types.new_class(kind.__name__, bases, exec_body=lambda namespace: namespace.update(own))
    made._neurokern_made = Made(kind, ours)  # now: a class that __init_subclass__ refused is one nevertheless
    return made


def _runs_ours(kind: type) -> bool:
    """Whether modules of ``kind`` have a forward of ours already."""
    entries = {e.ours for e in TABLE.values() if isinstance(e.ours, type)}
    for base in kind.__mro__:
        if base in entries or made_of(base) is not None:
            return True
        if "forward" in vars(base):
            return _is_of_this_package(base)
    return False


def _is_of_this_package(kind: type) -> bool:
    return kind.__module__.startswith(f"{__package__}.")


def is_ours(module: Module) -> bool:
    """Whether the forward of ``module`` is one of ours."""
    return "forward" not in vars(module) and _runs_ours(type(module))


def replaced(module: Module) -> tuple[type | None, str]:
    """The class that ``module`` gets, or None and why there is none; "" where there is nothing to say."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return None, "compiled by torch.jit"
    if "forward" in vars(module):
        return None, "a forward of its own, set on the module"
    try:
        return _replaced(module, kind)
    except TypeError as e:  # a metaclass or __init_subclass__ of theirs
        return None, f"no class can be made of its own: {e}"


def _replaced(module: Module, kind: type) -> tuple[type | None, str]:
    index = _wrapped(kind)
    if index is not None:
        base, reason = _replaced(module, kind.__bases__[index])
        # a parametrized class is written to when another parameter is parametrized, so that the old one is out of date
        return (base if base is None else _rewrapped(kind, index, base, mark=index > 0)), reason
    if _runs_ours(kind):
        return None, ""
    found = _registered(kind)
    if found is None:
        return None, _why_unknown(module)
    base, entry = found
    if kind.forward is not base.forward:
        return None, "a forward of its own"
    reason = None if entry.unless is None else entry.unless(module)
    if reason is not None or entry.ours is None:
        return None, reason or "left alone"
    return _made(kind, base, entry), ""


def _why_unknown(module: Module) -> str:
    if next(module.children(), None) is not None:
        return "a container"
    return f"no layer of ours for {_public(type_before_parametrizations(module))}"


def _public(kind: type) -> str:
    """The class as users write it."""
    if getattr(torch.nn, kind.__name__, None) is kind:
        return f"torch.nn.{kind.__name__}"
    return _called(kind)


def restored(kind: type) -> type:
    """The class that a module of ``kind`` had before it was taken; ``kind`` where it was not."""
    if (made := made_of(kind)) is not None:
        return made.theirs
    for theirs, entry in TABLE.items():
        if entry.ours is kind and _is_of_this_package(kind) and isinstance(theirs, type):
            return theirs
    index = _wrapped(kind)
    if index is not None and (base := restored(kind.__bases__[index])) is not kind.__bases__[index]:
        return _rewrapped(kind, index, base)
    return kind
