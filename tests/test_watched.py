"""What follows torch's ops from outside (forward mode, batched gradients, tracers, modes) sees ours or gets torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn
from torch import Tensor
from torch._dynamo import compiled_autograd
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

TF = torch.nn.functional
_FIXED = torch.Generator().manual_seed(0)  # compared with torch to the default tolerance, which cancellation can exceed
W, B, ONE = torch.randn(6, 4, generator=_FIXED), torch.randn(6, generator=_FIXED), torch.tensor([0.2])

OPS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "gelu": (F.gelu, TF.gelu),
    "relu in place": (lambda x: F.relu_(x * 2), lambda x: TF.relu_(x * 2)),
    "silu in place": (lambda x: F.silu(x * 2, inplace=True), lambda x: TF.silu(x * 2, inplace=True)),
    "softmax": (lambda x: F.softmax(x, -1), lambda x: TF.softmax(x, -1)),
    "log_softmax": (lambda x: F.log_softmax(x, 0), lambda x: TF.log_softmax(x, 0)),
    "softmin": (lambda x: F.softmin(x, 0), lambda x: TF.softmin(x, 0)),
    "glu": (F.glu, TF.glu),
    "swiglu": (F.swiglu, lambda x: TF.silu(x[..., :2]) * x[..., 2:]),
    "prelu": (lambda x: F.prelu(x, ONE), lambda x: TF.prelu(x, ONE)),
    "rrelu": (F.rrelu, TF.rrelu),
    "linear": (lambda x: F.linear(x, W, B), lambda x: TF.linear(x, W, B)),
    "linear, gelu": (lambda x: F.linear(x, W, B, activation="gelu"), lambda x: TF.gelu(TF.linear(x, W, B))),
    "mm": (lambda x: F.mm(x, W.t()), lambda x: torch.mm(x, W.t())),
    "addmm": (lambda x: F.addmm(B, x, W.t(), alpha=2, beta=3), lambda x: torch.addmm(B, x, W.t(), alpha=2, beta=3)),
    "bilinear": (
        lambda x: F.bilinear(x, x, W.view(1, 6, 4)[:, :4]),
        lambda x: TF.bilinear(x, x, W.view(1, 6, 4)[:, :4]),
    ),
}
ops = pytest.mark.parametrize("op", OPS)


@ops
@pytest.mark.parametrize("recorded", [False, True], ids=["", "recorded"])
def test_forward_mode(op: str, recorded: bool) -> None:
    x = torch.randn(3, 4, requires_grad=recorded)
    tangents = []
    for f in OPS[op]:
        with forward_ad.dual_level():
            tangents.append(
                forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.linspace(-1, 1, 12).view(3, 4)))).tangent
            )
    torch.testing.assert_close(*tangents)


@ops
def test_batches_of_gradients(op: str) -> None:
    x = torch.randn(3, 4, requires_grad=True)
    found = []
    for f in OPS[op]:
        y = f(x)
        g = torch.linspace(-1, 1, 2 * y.numel()).view(2, *y.shape)
        found.append(torch.autograd.grad(y, x, g, is_grads_batched=True)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("shape", [(4,), (3, 2, 4)], ids=str)
def test_batches_of_gradients_of_rows(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    found = [
        torch.autograd.functional.jacobian(lambda t, f=f: f(t, W, B), x, vectorize=True) for f in (F.linear, TF.linear)
    ]
    torch.testing.assert_close(*found)


@ops
@pytest.mark.parametrize("outer", ["reverse-mode", "forward-mode"])
def test_hessian_at_once(op: str, outer: str) -> None:
    x = torch.randn(3, 4)
    if op.startswith("rrelu") and outer == "forward-mode":
        x = x.abs()  # torch has no batched leaky_relu of both kinds
    ours, theirs = (
        torch.autograd.functional.hessian(
            lambda t, f=f: f(t).square().sum(), x, vectorize=True, outer_jacobian_strategy=outer
        )
        for f in OPS[op]
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@ops
def test_jit_trace_records_torchs_ops(op: str) -> None:
    ours, theirs = OPS[op]
    traced = torch.jit.trace(ours, (torch.randn(3, 4),), check_trace=False)
    x = torch.randn(3, 4)
    torch.testing.assert_close(traced(x), theirs(x))


@ops
def test_make_fx_of_real_tensors(op: str) -> None:
    ours, theirs = OPS[op]
    graph = make_fx(lambda x: ours(x))(torch.randn(3, 4))
    assert "neurokern" in graph.code
    x = torch.randn(3, 4)
    torch.testing.assert_close(graph(x), theirs(x))


def test_a_fake_mode_takes_real_tensors() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        for f, _ in OPS.values():
            assert isinstance(f(torch.randn(3, 4)), FakeTensor)


def test_a_dispatch_mode_sees_our_ops() -> None:
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    layer = nn.Sequential(nn.Linear(4, 6), nn.GELU())
    with Mode():
        layer(torch.randn(3, 4)).sum().backward()
    assert {"neurokern::linear", "neurokern::unary", "neurokern::unary_backward", "neurokern::linear_backward"} <= {
        *seen
    }


class Known(Tensor):
    """A class that knows torch's functions, as quantized weights do."""

    seen: ClassVar[list[Any]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (lambda x, w: F.linear(x, w), TF.linear),
        (lambda x, w: F.mm(x, w.t()), torch.mm),
        (lambda x, w: F.relu(w), TF.relu),
        (lambda x, w: F.relu(w * 1, inplace=True), TF.relu),
        (lambda x, w: F.softmax(w, 0), TF.softmax),
        (lambda x, w: F.glu(w, 1), TF.glu),
        (lambda x, w: F.prelu(x, w[0, :1]), torch.prelu),
    ],
    ids=["linear", "mm", "relu", "relu in place", "softmax", "glu", "prelu"],
)
def test_a_class_that_overrides_functions_is_asked_with_torchs(ours, theirs) -> None:
    x, w = torch.randn(3, 4), torch.randn(6, 4).as_subclass(Known)
    Known.seen.clear()
    with neurokern.trace() as launches:
        assert type(ours(x, w)) is Known
    assert theirs in Known.seen
    assert "Known" in launches[0].reason
    torch.testing.assert_close(ours(x, w).as_subclass(Tensor), ours(x, w.as_subclass(Tensor)))


class Named(Tensor):
    """A class that overrides nothing."""


@pytest.mark.parametrize("op", [op for op in OPS if not op.startswith("rrelu")])
def test_a_class_that_overrides_nothing_is_kept(op: str) -> None:
    found = []
    for f in OPS[op]:
        x = torch.linspace(-2, 2, 12).view(3, 4).as_subclass(Named).requires_grad_()
        y = f(x)
        y.square().sum().backward()
        assert type(y) is Named
        found.append((type(x.grad), y.detach().as_subclass(Tensor), x.grad.as_subclass(Tensor)))
    assert found[0][0] is found[1][0]
    torch.testing.assert_close(found[0][1:], found[1][1:])


@pytest.mark.parametrize("op", ["gelu", "glu", "linear", "linear, gelu", "mm", "addmm"])
def test_what_a_class_that_overrides_nothing_gives_may_be_written_to(op: str) -> None:
    x = torch.randn(3, 4).as_subclass(Named).requires_grad_()
    y = F.silu(OPS[op][0](x), inplace=True)
    y.sum().backward()
    plain = x.detach().as_subclass(Tensor).requires_grad_()
    TF.silu(OPS[op][1](plain)).sum().backward()
    torch.testing.assert_close(x.grad.as_subclass(Tensor), plain.grad)


def test_a_class_that_overrides_nothing_in_place() -> None:
    x = torch.randn(3, 4).as_subclass(Named)
    expected = F.silu(x.as_subclass(Tensor))
    assert F.silu(x, inplace=True) is x
    assert torch.equal(x.as_subclass(Tensor), expected)


@ops
@pytest.mark.parametrize("backend", ["auto", "cpu"])
@pytest.mark.parametrize("kind", [RuntimeError, TypeError, IndexError, ValueError, NotImplementedError])
def test_what_a_hook_raises_comes_through(op: str, backend: str, kind: type[Exception]) -> None:
    raised = []

    def pack(t: Tensor) -> Tensor:
        if raised:
            return t  # a second try would go well
        raised.append(kind("no room left"))
        raise raised[0]

    x = torch.randn(3, 4, requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    with neurokern.backend(backend), hooks, pytest.raises(kind) as found:
        OPS[op][0](x)
    assert found.value is raised[0]


def test_what_a_dispatch_mode_raises_comes_through() -> None:
    class Once(TorchDispatchMode):
        raised = False

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "neurokern" in func.name() and not self.raised:
                self.raised = True
                raise RuntimeError("not today")
            return func(*args, **(kwargs or {}))

    for f in (lambda: F.linear(torch.randn(3, 4), W, B), lambda: F.softmax(W, 1), lambda: F.glu(W)):
        with Once(), pytest.raises(RuntimeError, match=r"^not today$"):
            f()


@pytest.mark.parametrize("op", ["gelu", "silu in place", "softmax", "glu", "linear, gelu"])
@pytest.mark.parametrize("batched", [False, True])
def test_derivatives_of_any_order_under_hooks(op: str, batched: bool) -> None:
    start, found = torch.randn(3, 4), []
    hooks = torch.autograd.graph.saved_tensors_hooks
    for f in OPS[op]:
        x = start.clone().requires_grad_()
        with hooks(lambda t: t, lambda t: t), hooks(lambda t: (t,), lambda t: t[0]):
            y = f(x)
            g = torch.linspace(-1, 1, 2 * y.numel()).view(2, *y.shape)
            if batched:
                y = torch.autograd.grad(y, x, g, is_grads_batched=True)[0]
            else:
                for _ in range(3):
                    (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            assert torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        found.append(y.detach())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("act", ["elu", "silu", "relu"])
def test_compiled_autograd_of_what_is_in_place(act: str) -> None:
    start, found = torch.randn(3, 4), []
    for functions in (F, TF):
        x = start.clone().requires_grad_()
        with compiled_autograd._enable(lambda graph: graph):
            getattr(functions, act)(x * 2, inplace=True).square().sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found)
