"""Imports from neurokern.nn are as those from torch.nn, of every kind; torch's modules stay as they are."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import pydoc
import subprocess
import sys
import textwrap
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn


def names_of(statement: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(statement, found)
    del found["__builtins__"]
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "import {}.init as x",
        "import {}.utils as x",
        "import {}.utils.rnn as x",
        "import {}.attention.flex_attention as x",
        "from {}.utils import clip_grad_norm_, weight_norm, rnn",
        "from {}.utils.rnn import pad_sequence",
        "from {}.parallel import DistributedDataParallel, replicate",
        "from {}.attention import sdpa_kernel, SDPBackend",
        "from {}.parameter import Parameter, UninitializedParameter",
        "from {}.modules.module import Module, register_module_forward_hook",
        "from {}.modules.dropout import _DropoutNd, Dropout2d",
        "from {}.modules import Dropout2d, Module",
        "from {}.functional import dropout2d, cross_entropy",
        "from {}.utils import *",
        "from {}.init import *",
    ],
)
def test_torchs_own(statement: str) -> None:
    ours, theirs = names_of(statement.format("neurokern.nn")), names_of(statement.format("torch.nn"))
    assert theirs
    assert ours == theirs


@pytest.mark.parametrize(
    "statement", ["import neurokern.nn.utils.rnn", "import neurokern.nn.init, neurokern.nn.functional"]
)
def test_statements_that_bind_the_package(statement: str) -> None:
    assert names_of(statement) == {"neurokern": neurokern}
    assert neurokern.nn.utils.rnn.pad_sequence is torch.nn.utils.rnn.pad_sequence


def test_functional_is_ours() -> None:
    import neurokern.nn.functional as by_import

    assert by_import is F
    assert importlib.import_module("neurokern.nn.functional") is F
    assert names_of("from neurokern.nn import functional") == {"functional": F}
    assert names_of("from neurokern.nn.functional import gelu") == {"gelu": F.gelu}
    assert F.__spec__.name == F.__name__ == "neurokern.functional"


def test_classes_of_modules_are_ours_where_we_have_them() -> None:
    for statement in ("from neurokern.nn.modules.linear import Linear", "from neurokern.nn.modules import Linear"):
        assert names_of(statement) == {"Linear": nn.Linear}
    assert nn.modules.linear.Linear is nn.modules.Linear is nn.Linear
    assert nn.modules.activation.GELU is nn.GELU
    assert nn.modules.linear.Identity is torch.nn.Identity
    assert (
        names_of("from neurokern.nn.modules.linear import *").keys()
        == names_of("from torch.nn.modules.linear import *").keys()
    )
    assert set(dir(torch.nn.modules.linear)) <= set(dir(nn.modules.linear)) | {"__builtins__", "__cached__", "__file__"}
    with pytest.raises(AttributeError):
        nn.modules.linear.NoSuchLayer  # noqa: B018


def test_what_is_set_on_modules_does_not_reach_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock would put our class there when it gives back what it found."""
    with monkeypatch.context() as m:
        m.setattr(nn.modules.linear, "Linear", int)
    assert torch.nn.modules.linear.Linear is torch.nn.Linear
    assert nn.modules.linear.Linear is nn.Linear


def test_stars() -> None:
    theirs, ours = names_of("from torch.nn import *"), names_of("from neurokern.nn import *")
    assert set(theirs) <= set(ours)
    assert {n for n in theirs if ours[n] is not theirs[n]} == {
        *(n for n in nn.NATIVE if n in theirs),
        "functional",
        "modules",
    }
    theirs, ours = names_of("from torch.nn.functional import *"), names_of("from neurokern.functional import *")
    assert {n for n, v in theirs.items() if not inspect.ismodule(v)} <= set(ours)
    assert {n for n in ours if ours[n] is not theirs.get(n)} == {*F.NATIVE, "NATIVE"}
    assert set(nn.__all__) <= set(dir(nn))


def test_names_that_are_not_there() -> None:
    for name in ("neurokern.nn.no_such", "neurokern.nn.utils.no_such", "neurokern.nn.modules.no_such"):
        with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'"):
            importlib.import_module(name)
        assert importlib.util.find_spec(name) is None
    with pytest.raises(ImportError, match=r"cannot import name 'no_such' from 'neurokern\.nn'"):
        names_of("from neurokern.nn import no_such")


def test_help_and_pickle() -> None:
    text = pydoc.plain(pydoc.render_doc(nn))
    assert "class LinearActivation" in text
    assert "neurokern.nn.utils" not in {m.__name__ for m in sys.modules.values() if inspect.ismodule(m)}
    for thing in (nn.Conv2d, nn.utils.clip_grad_norm_, nn.modules.Conv2d, F.conv2d, F.gelu, nn.Linear):
        assert pickle.loads(pickle.dumps(thing)) is thing
    assert nn.utils.rnn.PackedSequence.__module__ == "torch.nn.utils.rnn"
    assert inspect.getmodule(torch.nn.Linear) is torch.nn.modules.linear
    assert inspect.getmodule(torch.nn.Linear.forward.__code__) is torch.nn.modules.linear


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_torchs_modules_are_not_written_to() -> None:
    """Neither their specs nor their names, nor functions that have the name of a module beside them."""
    run("""
        import importlib, pkgutil, sys, torch

        def state():
            return {
                name: {k: id(v) for k, v in vars(module).items() if k != "__builtins__"}
                for name, module in sys.modules.items()
                if name.startswith("torch.nn")
            }

        names = [n.removeprefix("torch.nn.") for n in sys.modules if n.startswith("torch.nn.")]
        before = state()
        import neurokern
        for name in names:
            importlib.import_module(f"neurokern.nn.{name}")
        from neurokern.nn import *
        assert state() == before
        assert len(names) > 50 and callable(torch.nn.utils.weight_norm)

        # those that torch itself imports late: as if by torch's own name
        import neurokern.nn.attention.flex_attention as flex, neurokern.nn.utils.prune as prune
        assert flex is sys.modules["torch.nn.attention.flex_attention"] and prune is torch.nn.utils.prune
        assert flex.__name__ == flex.__spec__.name == "torch.nn.attention.flex_attention"
        assert prune.__spec__.loader is prune.__loader__ and prune.__package__ == "torch.nn.utils"
    """)


def test_nothing_heavy_is_imported() -> None:
    run("""
        import sys, torch
        before = set(sys.modules)
        import neurokern
        added = {n.partition(".")[0] for n in set(sys.modules) - before if not n.startswith("neurokern")}
        assert not added & {"rich", "typer", "triton", "transformers", "sympy", "numpy", "torch"} , added
    """)
