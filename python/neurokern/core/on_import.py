"""What is to be told to a module of torch once somebody imports it: some take longer to import than all of ours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_waiting: dict[str, list[Callable[[ModuleType], None]]] = {}


class _Finder(MetaPathFinder):
    """Finds nothing by itself: it lets the others find, and follows the loading."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _waiting:
            return None
        actions = _waiting.pop(name)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_tell(module: ModuleType) -> None:
                load(module)
                for action in actions:
                    action(module)

            spec.loader.exec_module = load_and_tell  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())


def on_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call ``action(module)`` when the module of that name has been imported: now, if it is there."""
    if (module := sys.modules.get(name)) is not None:
        action(module)
    else:
        _waiting.setdefault(name, []).append(action)
