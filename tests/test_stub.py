"""The extension's stub is what the extension says of itself."""

from __future__ import annotations

import ast
import inspect

from neurokern import _C
from neurokern.testing import stub


def test_the_stub_is_up_to_date() -> None:
    assert stub.PATH.read_text() == stub.text(), "run python -m neurokern.testing.stub"


def test_every_function_is_in_it_with_its_arguments() -> None:
    functions = {f.name: f for f in ast.parse(stub.text()).body if isinstance(f, ast.FunctionDef | ast.ClassDef)}
    assert set(functions) == {n for n in dir(_C) if callable(getattr(_C, n)) and not n.startswith("__")}
    assert [a.arg for a in functions["softmax_backward"].args.args] == ["g", "y", "dim", "kind"]
    assert ast.unparse(functions["layer_norm"].args.args[1].annotation) == "Tensor | None"
    assert inspect.getdoc(_C.softmax).startswith("softmax(input: Tensor, dim: int, kind: str) -> Tensor")
