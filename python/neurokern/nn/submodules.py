"""The modules of torch.nn by our package's name: `import neurokern.nn.utils.rnn` is torch.nn.utils.rnn itself.

Those under ``modules``, where torch keeps its classes, are modules of our own that have our classes in the place of
torch's. Nothing is imported that nobody asks for, and no module of torch's is written to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

OURS, THEIRS = f"{__package__}.", "torch.nn."


class _Modules(ModuleType):
    """A module of torch.nn.modules with classes of ours where we have them."""

    def __init__(self, name: str, theirs: ModuleType, ours: Callable[[str], Any]) -> None:
        super().__init__(name, theirs.__doc__)
        public = getattr(theirs, "__all__", None) or [n for n in vars(theirs) if not n.startswith("_")]
        spec = ModuleSpec(name, None, origin=getattr(theirs, "__file__", None), is_package=hasattr(theirs, "__path__"))
        vars(self).update(__spec__=spec, __all__=list(public), _theirs=theirs, _ours=ours)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # a __file__ of torch's is that of torch's module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(vars(self)["_theirs"], name)
        if isinstance(value, ModuleType):
            return sys.modules.get(f"{self.__name__}.{name}", value)
        return value if name.startswith("_") else vars(self)["_ours"](name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(vars(self)["_theirs"])})


class _Loader(Loader):
    """Puts what `make` finds in the place of the module that is being imported, which is left to itself."""

    def __init__(self, make: Callable[[], ModuleType]) -> None:
        self._make = make

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = self._make()


class _Finder(MetaPathFinder):
    """Finds a module of ours where there is one, else torch's of the same name."""

    def __init__(self, alias: Callable[[str, ModuleType], ModuleType]) -> None:
        self._alias = alias

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(OURS):
            return None
        inner = name.removeprefix(OURS)
        if "." not in inner:  # within a package of torch's, others would find a file of torch's, and load it once more
            for finder in sys.meta_path:
                if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                    return spec
        theirs = find_spec(THEIRS + inner)
        if theirs is None:
            return None
        return ModuleSpec(name, _Loader(lambda: self._alias(name, import_module(THEIRS + inner))))


def install(functional: ModuleType, native: dict[str, type]) -> None:
    """Let every import under ``neurokern.nn`` find what it finds under ``torch.nn``.

    Args:
        functional: what ``neurokern.nn.functional`` is.
        native: our classes by their names.
    """

    def ours(name: str, value: Any) -> Any:
        found = native.get(name)
        return found if found is not None and isinstance(value, type) and issubclass(found, value) else value

    def alias(name: str, theirs: ModuleType) -> ModuleType:
        return _Modules(name, theirs, ours) if f"{name}.".startswith(f"{OURS}modules.") else theirs

    sys.modules[f"{OURS}functional"] = functional
    # those that are there by now without an import: it would set them on their package, which may have a function of
    # that name instead (torch.nn.utils.weight_norm)
    for name, module in list(sys.modules.items()):
        if name.startswith(THEIRS) and (own := OURS + name.removeprefix(THEIRS)) not in sys.modules:
            sys.modules[own] = alias(own, module)
    sys.meta_path.insert(0, _Finder(alias))
