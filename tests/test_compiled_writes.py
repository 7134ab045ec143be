"""torch.compile, where something is written to between forward and backward, and where parameters change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import neurokern.functional as F
import pytest
import torch
from neurokern.testing.spec import all_specs
from torch import Tensor

TF = torch.nn.functional
pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++"),
    pytest.mark.slow,
]
IN_PLACE = [s for s in all_specs() if any(name.endswith("_") for name in s.registered)]


def test_the_gradient_of_an_activation_in_place_upon_a_view() -> None:
    """All that torch has, in one graph, each upon a view of an input of its own."""
    assert len(IN_PLACE) >= 13
    given = [next(iter(s.samples(torch_maker()))).kwargs for s in IN_PLACE]

    def run(which: str, compiled: bool) -> list[Tensor]:
        torch._dynamo.reset()
        x = [t.clone().requires_grad_() for t in values]

        def all_of_them(*inputs: Tensor) -> list[Tensor]:
            fs = [getattr(s, which) for s in IN_PLACE]
            return [f(h.t(), **k, inplace=True) for f, h, k in zip(fs, inputs, given, strict=True)]

        f = torch.compile(all_of_them) if compiled else all_of_them
        out = f(*(t * 1 for t in x))
        sum(t.sum() for t in out).backward()
        return [t.grad for t in x]

    values = [torch.randn(4, 5) for _ in IN_PLACE]
    torch.testing.assert_close(run("op", True), run("torch", False))


def torch_maker():
    from neurokern.testing import Maker

    return Maker.seeded(0)


@pytest.mark.parametrize("view", [lambda h: h[1:], lambda h: h.t(), lambda h: h.view(-1)], ids=["rows", "t", "flat"])
def test_a_saved_view_survives_its_base(view: Callable[[Tensor], Tensor]) -> None:
    """What is written to before the backward leaves the gradient right."""
    x = torch.randn(4, 5)

    def gradient(f: Callable[[Tensor], Tensor], write: bool) -> Tensor:
        leaf = x.clone().requires_grad_()
        h = leaf * 1
        y = f(h)
        if write:
            h.mul_(3)
        y.sum().backward()
        return leaf.grad

    torch._dynamo.reset()
    ours = torch.compile(lambda h: F.gelu(view(h)) + F.silu(view(h)))
    torch.testing.assert_close(gradient(ours, True), gradient(lambda h: TF.gelu(view(h)) + TF.silu(view(h)), False))


PARAMETERS = {
    "softplus": (lambda x, s: F.softplus(x * s, s * 2), lambda x, s: TF.softplus(x * s, s * 2)),
    "hardshrink": (lambda x, s: F.hardshrink(x, s), lambda x, s: TF.hardshrink(x, s)),
    "celu": (lambda x, s: F.celu(x, s + 0.1), lambda x, s: TF.celu(x, s + 0.1)),
    "leaky_relu": (lambda x, s: F.leaky_relu(x, s), lambda x, s: TF.leaky_relu(x, s)),
    "linear": (
        lambda x, s: F.linear(x, x, activation=("elu", s)),
        lambda x, s: TF.elu(TF.linear(x, x), s),
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "gradient"])
def test_a_parameter_that_changes(name: str, grad: bool) -> None:
    """Its value is the call's, in two graphs: one for the first value, one for all others."""
    ours, torchs = PARAMETERS[name]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(ours)
    x = torch.randn(6, 6, requires_grad=grad)
    for s in (0.2, 0.4, 0.6, 0.8, 1.5):
        got, want = compiled(x, s), torchs(x, s)
        torch.testing.assert_close(got, want)
        if grad:
            torch.testing.assert_close(torch.autograd.grad(got.sum(), x), torch.autograd.grad(want.sum(), x))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


TWICE = {
    "matmul": lambda f, x: f.matmul(x, x),
    "linear": lambda f, x: f.linear(x, x),
    "bilinear": lambda f, x: f.bilinear(x, x, x.expand(2, *x.shape)),
    "prelu": lambda f, x: f.prelu(x[0], x[0, :1]) + f.prelu(x, x[0]),
    "layer_norm": lambda f, x: f.layer_norm(x[0], x[0].shape, x[0], x[0]),
}


@pytest.mark.parametrize("name", TWICE)
def test_one_tensor_in_two_places_is_one_graph(name: str) -> None:
    call, x = TWICE[name], torch.randn(4, 4, requires_grad=True)
    torchs = SimpleNamespace(**{n: getattr(TF, n, None) or getattr(torch, n) for n in TWICE})
    torch._dynamo.reset()
    got, want = torch.compile(call, fullgraph=True)(F, x), call(torchs, x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), x), torch.autograd.grad(want.sum(), x))


IN_ANOTHER_PROCESS = """
import torch
import neurokern.functional as F

compiled = torch.compile(lambda x, s: F.softplus(x * s, s * 2))
x = torch.linspace(-3, 3, 36).view(6, 6)
for s in (0.2, 0.4, 0.6, 0.8):
    torch.testing.assert_close(compiled(x, s), torch.nn.functional.softplus(x * s, s * 2))
"""


def test_a_parameter_that_changes_where_the_code_is_cached(tmp_path: Path) -> None:
    """The second process takes its code from the first one's folder, and the values from its own calls."""
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]


def test_two_saved_views_of_one_input_survive_it() -> None:
    """Copies of both, made before the write: the compiler would rather keep the one view and copy it afterwards."""
    x = torch.randn(4, 5)

    def gradient(f: Callable[[Tensor], Tensor], write: bool) -> Tensor:
        leaf = x.clone().requires_grad_()
        h = leaf * 1
        y = f(h)
        if write:
            h.mul_(3)
        (y * torch.arange(4.0).view(2, 2)).sum().backward()
        return leaf.grad

    torch._dynamo.reset()
    ours = torch.compile(lambda h: F.matmul(h[:2], h[:2].t()))
    torch.testing.assert_close(gradient(ours, True), gradient(lambda h: torch.matmul(h[:2], h[:2].t()), False))
