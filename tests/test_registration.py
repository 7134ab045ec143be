"""The registered ops as torch sees them: opcheck, torch.compile with inductor, torch.func."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn
from neurokern.core.op import OPS
from neurokern.core.registry import REGISTERED
from neurokern.testing import Maker, OpSpec, all_specs
from neurokern.testing.calls import registered_calls
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import conv2d

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")


def test_opcheck(spec: OpSpec, seed: int) -> None:
    """Schema, fake against real outputs (strides too), no hidden aliasing: for every op that the spec exercises."""
    calls = registered_calls(spec, seed)
    assert not {name for name, _ in calls} ^ set(spec.registered)
    seen: dict[str, int] = {}
    for name, args in calls:
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= 3:
            op = getattr(torch.ops.neurokern, name)
            tests = ("test_schema", "test_faketensor")
            torch.library.opcheck(op.default, args, test_utils=tests)


def test_every_op_has_a_decomposition() -> None:
    """Forward, recorded, backward and in-place ones, with Scalars and with tensors: all stand in the default table."""
    table = torch.export.default_decompositions()
    kinds = {op.name: (op.run, op.run_recorded, op.run_backward) for op in OPS.values()}
    kinds["copied"] = (torch.ops.neurokern.copied,)
    missing = [
        f"{name}: {getattr(packet, overload)}"
        for name, packets in kinds.items()
        for packet in packets
        if packet is not None
        for overload in packet.overloads()
        if getattr(packet, overload) not in table
    ]
    assert not missing
    assert {p.__name__ for packets in kinds.values() for p in packets if p is not None} == {*REGISTERED, "copied"}


def test_a_decomposition_can_be_left_out_and_inductor_has_none() -> None:
    table = torch.export.default_decompositions()
    linear = torch.ops.neurokern.linear.default
    del table[linear]
    program = torch.export.export(nn.Sequential(nn.Linear(4, 6), nn.GELU()), (torch.randn(3, 4),))
    targets = [n.target for n in program.run_decompositions(table).graph.nodes if n.op == "call_function"]
    assert targets == [linear, torch.ops.aten.gelu.default]
    from torch._inductor.decomposition import select_decomp_table

    composite = {torch.ops.neurokern.safe_from_writes.default}
    assert {op for op in select_decomp_table() if str(op).startswith("neurokern")} == composite


def test_decompositions_are_right(spec: OpSpec, seed: int) -> None:
    """Each makes of aten ops alone what the kernel makes, for every op that the spec exercises."""
    table = torch.export.default_decompositions()
    seen: dict[str, int] = {}
    for name, args in registered_calls(spec, seed, torch.float64):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 3 or (name == "unary_backward2" and "hardsigmoid" in args):  # torch has no such derivative
            continue
        op = getattr(torch.ops.neurokern, name).default
        copies = [[a.clone() if isinstance(a, Tensor) else a for a in args] for _ in range(2)]
        expected = op(*copies[0])
        with torch.no_grad():
            # by proxies, as export has them
            graph = make_fx(lambda *a, op=op: op(*a), decomposition_table=table, tracing_mode="fake")(*copies[1])
            assert "neurokern" not in graph.code, name
            got = graph(*copies[1])
        torch.testing.assert_close(
            got, expected, rtol=1e-9, atol=1e-9, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
        torch.testing.assert_close(copies[1][0], copies[0][0], equal_nan=True)  # what is in place writes to it


def grads(f: Callable[..., Any], inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = f(*leaves)
    out = list(out) if isinstance(out, tuple | list) else [out]
    sum((o * torch.linspace(-1, 2, o.numel()).view(o.shape)).sum() for o in out).backward()
    return [o.detach() for o in out], [t.grad for t in leaves]


def same_compiled(f: Callable[..., Any], *inputs: list[Tensor], dynamic: bool = False) -> None:
    """Compiled in one graph, f gives what it gives uncompiled, gradients too."""
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, dynamic=dynamic)
    for given in inputs:
        expected, got = grads(f, given), grads(compiled, given)
        torch.testing.assert_close(got, expected, equal_nan=True)


@needs_compiler
@pytest.mark.slow
def test_compile_every_elementwise_activation(seed: int) -> None:
    """All in one graph, which inductor compiles once."""
    specs = [s for s in all_specs() if s.act and s.family == "activation" and "glu" not in s.name]
    make = Maker.seeded(seed, "compile unary")
    kwargs = [next(iter(s.samples(Maker.seeded(0)))).kwargs for s in specs]

    def f(x):
        return [s.op(x, **k) for s, k in zip(specs, kwargs, strict=True)]

    same_compiled(f, [make(7, 9, scale=3)])


@needs_compiler
@pytest.mark.slow
def test_compile_gated_softmax_prelu(seed: int) -> None:
    make = Maker.seeded(seed, "compile gated")

    def f(x, w):
        return [
            F.glu(x),
            F.swiglu(x, 0),
            F.geglu(x),
            F.reglu(x),
            F.prelu(x, w),
            F.softmax(x, -1),
            F.log_softmax(x, 0),
            F.softmin(x, 1),
            F.relu(x * 2, inplace=True),
            F.rrelu(x),
        ]

    same_compiled(f, [make(6, 8), make(8)])


@needs_compiler
@pytest.mark.slow
def test_compile_products(seed: int) -> None:
    make = Maker.seeded(seed, "compile products")

    def f(x, w, b, r):
        y = F.linear(x, w, b)
        y = F.linear(y, w, b, activation="gelu", residual=r)
        z = F.matmul(y, w) + F.bmm(y.unsqueeze(0), w.unsqueeze(0)).squeeze(0)
        return F.addmm(b, z, w.t(), alpha=0.5), F.bilinear(x, y, w.unsqueeze(0)), F.linear(x, w, activation="relu")

    same_compiled(f, [make(5, 8), make(8, 8), make(8), make(5, 8)])


@needs_compiler
@pytest.mark.slow
def test_compile_dynamic_shapes(seed: int) -> None:
    """One graph for every batch size."""
    make = Maker.seeded(seed, "compile dynamic")

    def f(x, w, b):
        return F.softmax(F.linear(F.swiglu(x), w, b, activation="silu"), -1)

    w, b = make(6, 4), make(6)
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, dynamic=True)
    for rows in (3, 5, 17):
        given = [make(rows, 8), w, b]
        torch.testing.assert_close(grads(compiled, given), grads(f, given))


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: F.mm(x, w.t()),
        lambda x, w: F.addmm(w[:, 1], x, w.t(), alpha=0.5),
        lambda x, w: F.linear(x, w),
        lambda x, w: F.linear(x, w, activation="leaky_relu"),
        lambda x, w: F.leaky_relu(x),
        lambda x, w: F.silu(x * 1, inplace=True),
    ],
    ids=["mm", "addmm", "linear", "linear, leaky_relu", "leaky_relu", "silu in place"],
)
def test_one_op_many_times_in_a_dynamic_graph(f: Callable[..., Tensor]) -> None:
    """Dynamo lifts nothing of the first into the second."""
    torch._dynamo.reset()
    x, w = torch.randn(3, 8, requires_grad=True), torch.randn(6, 8, requires_grad=True)
    both = lambda a, b: f(a, b) + f(a * 2, b)  # noqa: E731
    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    got, expected = (torch.autograd.grad(g(x, w).sum(), x) for g in (compiled, both))
    torch.testing.assert_close(got, expected)


@needs_compiler
@pytest.mark.slow
def test_compile_in_place_upon_a_convolution(seed: int) -> None:
    """Its sizes are formulas that Inductor can't compare, where an op writes in place.

    In float64: the convolutions are torch's, and their sums may go in another order.
    """
    make = Maker.seeded(seed, "compile in place", dtype=torch.float64)

    def f(x, w):
        y = conv2d(x, w, stride=2, padding=1)
        return F.relu(conv2d(F.silu(y, inplace=True), w[:, :1].expand(-1, 8, -1, -1)), inplace=True)

    same_compiled(f, [make(2, 3, 16, 16), make(8, 3, 3, 3)], dynamic=True)


@needs_compiler
def test_compile_layers(seed: int) -> None:
    make = Maker.seeded(seed, "compile layers")
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.LinearActivation(10, 10, activation="relu"), nn.Linear(10, 3))
    x = make(4, 6)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


def test_make_fx_shows_the_ops(seed: int) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(lambda x: torch.ops.neurokern.unary(x, "relu", 0.0, 0.0), tracing_mode="fake")(torch.randn(3))
    assert "neurokern.unary" in graph.code


class TestFunctorch:
    """torch.func's transforms wrap tensors that no kernel can read: torch's own op answers, and the trace says why."""

    @pytest.mark.parametrize("f", [F.gelu, F.relu, F.swiglu, lambda x: F.softmax(x, -1), lambda x: F.linear(x, x)])
    def test_vmap(self, f: Callable[[Tensor], Tensor], seed: int) -> None:
        x = Maker.seeded(seed, "vmap")(5, 3, 4)
        with neurokern.trace() as launches:
            got = torch.func.vmap(f)(x)
        torch.testing.assert_close(got, torch.stack([f(row) for row in x]))
        assert any(entry.backend == "torch" and "functorch" in entry.reason for entry in launches)

    def test_grad(self, seed: int) -> None:
        x = Maker.seeded(seed, "grad")(7)
        got = torch.func.grad(lambda t: F.gelu(t).sum())(x)
        leaf = x.clone().requires_grad_()
        F.gelu(leaf).sum().backward()
        torch.testing.assert_close(got, leaf.grad)

    def test_strict_objects(self) -> None:
        with neurokern.strict(), pytest.raises(RuntimeError, match="functorch"):
            torch.func.vmap(F.relu)(torch.randn(2, 3))


@pytest.mark.parametrize(
    ("layer", "shape", "says"),
    [
        (nn.Linear(3, 4), (2, 5), r"neurokern\.linear"),
        (nn.LinearActivation(3, 4, activation="gelu"), (2, 5), r"neurokern\.linear"),
        (nn.LayerNorm(3), (2, 5), r"neurokern\.layer_norm"),
        (nn.RMSNorm(3), (2, 5), r"neurokern\.rms_norm"),
        (nn.PReLU(3), (2, 5), r"neurokern\.prelu"),
        (nn.GLU(0), (3, 5), r"neurokern\.glu"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, torch.nn.Module) else None,
)
def test_sizes_that_do_not_fit_are_refused_while_tracing(layer: torch.nn.Module, shape: Any, says: str) -> None:
    """As torch's ops are: an exported program of a model that can't run would fail where it is loaded."""
    with pytest.raises(RuntimeError, match=says):
        torch.export.export(layer, (torch.randn(shape),))
