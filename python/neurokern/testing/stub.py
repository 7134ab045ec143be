"""Writes ``_C.pyi`` from what the extension says of itself: ``python -m neurokern.testing.stub``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .. import _C

PATH = Path(__file__).parent.parent / "_C.pyi"
HEAD = '''"""The extension, written by `python -m neurokern.testing.stub` from the docstrings of its functions.

Kernel entries read their tensors through DLPack, check, allocate, plan and launch. Errors: RuntimeError (dtype, device,
shape), IndexError (dim), ValueError (names), TypeError (no tensor, a wrong number of arguments).
"""

import types
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

# name -> (id, parameters with their defaults, whether the output tells the derivative)
ACTIVATIONS: dict[str, tuple[int, str, bool]]
# kernel entries as autograd records them: they return what a gradient needs besides
recorded: dict[str, Callable[..., Any]]

'''
_PLAIN = {
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "typing.SupportsFloat | typing.SupportsIndex": "float",
    "collections.abc.": "",
}


def _signature(function: Any) -> str:
    signature = function.__doc__.partition("\n")[0]
    for long, short in _PLAIN.items():
        signature = signature.replace(long, short)
    return re.sub(r"std::vector<.*?> > ?>?", "Sequence[Any]", signature)


def _class(kind: type) -> list[str]:
    methods = [f for n, f in sorted(vars(kind).items()) if n == "__init__" or not n.startswith("_")]
    signatures = (re.sub(r"self: [\w.]+", "self", _signature(f)) for f in methods)
    return [f"class {kind.__name__}:", *(f"    def {s}: ..." for s in signatures)]


def text() -> str:
    """The whole file."""
    lines = []
    for name in sorted(dir(_C)):
        function = getattr(_C, name)
        if name.startswith("__") or not callable(function):
            continue
        if isinstance(function, type):
            lines += _class(function)
            continue
        lines.append(f"def {_signature(function)}: ...")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
