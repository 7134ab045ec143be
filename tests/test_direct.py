"""The common way through an op, in C: autograd sees no difference to the Functions written in Python."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern.testing import OpSpec, expected, judge
from neurokern.testing.spec import all_specs

OPS = {
    "gelu": (lambda x: F.gelu(x), torch.nn.functional.gelu),
    "softmax": (lambda x: F.softmax(x, -1), lambda x: torch.softmax(x, -1)),
    "glu": (lambda x: F.glu(x, -1), lambda x: torch.nn.functional.glu(x, -1)),
    "matmul": (lambda x: F.matmul(x, x.mT / 16), lambda x: torch.matmul(x, x.mT / 16)),
    "prelu": (lambda x: F.prelu(x, torch.tensor([0.2])), lambda x: torch.prelu(x, torch.tensor([0.2]))),
}
ops = pytest.mark.parametrize("op", OPS)


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


@ops
def test_is_taken_and_differentiates(op: str) -> None:
    ours, torchs = OPS[op]
    x = leaf(3, 8)
    y = ours(x)
    assert type(y.grad_fn).__name__.startswith("Direct")
    g = torch.randn_like(y)
    torch.testing.assert_close(torch.autograd.grad(y, x, g), torch.autograd.grad(torchs(x), x, g))


@ops
def test_twice_through_one_graph_and_then_freed(op: str) -> None:
    x = leaf(3, 8)
    y = OPS[op][0](x)
    g = torch.randn_like(y)
    first = torch.autograd.grad(y, x, g, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(y, x, g), first, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, x, g)


@ops
def test_a_graph_of_the_gradient(op: str) -> None:
    ours, torchs = OPS[op]
    x = leaf(3, 8)

    def second(f) -> torch.Tensor:
        y = f(x)
        (gx,) = torch.autograd.grad(y, x, torch.cos(y), create_graph=True)
        return torch.autograd.grad(gx.square().sum(), x)[0]

    torch.testing.assert_close(second(ours), second(torchs))


@ops
def test_nothing_is_kept_alive(op: str) -> None:
    x = leaf(3, 8)
    y = OPS[op][0](x)
    seen = weakref.ref(y.grad_fn)
    y.sum().backward()
    del y
    gc.collect()
    assert seen() is None


def test_saved_tensors_pass_through_hooks() -> None:
    seen = []

    def pack(t: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(t.shape))
        return t.double()

    x = leaf(3, 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t.float()):
        y = F.gelu(x)
    y.sum().backward()
    assert seen == [(3, 8)]
    torch.testing.assert_close(x.grad, torch.autograd.grad(torch.nn.functional.gelu(x).sum(), x)[0])


def test_an_input_changed_in_place_is_noticed() -> None:
    x = leaf(3, 8)
    z = x * 2
    y = F.gelu(z)
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_gradients_of_every_layout() -> None:
    x = leaf(6, 8)
    for make in (
        lambda: torch.randn(8, 6).t(),
        lambda: torch.tensor(1.5).expand(6, 8),
        lambda: torch._neg_view(torch.randn(6, 8)),
    ):
        g = make()
        (ours,) = torch.autograd.grad(F.silu(x), x, g)
        torch.testing.assert_close(ours, torch.autograd.grad(torch.nn.functional.silu(x), x, g)[0])


def test_what_is_not_common_goes_the_long_way() -> None:
    x = torch.randn(4, 8)
    with neurokern.trace() as launches:
        out = torch.func.vmap(F.gelu)(x)
    torch.testing.assert_close(out, torch.nn.functional.gelu(x))
    assert launches[0].backend == "torch"
    assert "functorch" in launches[0].reason
    assert F.relu(torch.arange(-2, 3)).tolist() == [0, 0, 0, 1, 2]
    with torch.autocast("cpu", torch.bfloat16):
        assert F.linear(x, torch.randn(3, 8)).dtype == torch.bfloat16
        assert F.matmul(x, torch.randn(8, 3)).dtype == torch.bfloat16
    with neurokern.backend("cpu"):  # which changes where it runs, not the way there
        assert type(F.relu(leaf(3)).grad_fn).__name__.startswith("Direct")


def test_wrong_numbers_of_arguments() -> None:
    from neurokern.ops.softmax import softmax as call

    with pytest.raises(TypeError, match="do not fit"):
        call()
    with pytest.raises(TypeError, match="do not fit"):
        call(*[torch.zeros(1)] * 40)


@pytest.mark.parametrize("alpha, beta", [(2, 3), (True, 1), (0.5, -1.25)])
def test_products_take_any_number(alpha: float, beta: float) -> None:
    c, a, b = torch.randn(5, 7), torch.randn(5, 3), torch.randn(3, 7)
    torch.testing.assert_close(
        F.addmm(c, a, b, alpha=alpha, beta=beta), torch.addmm(c, a, b, alpha=alpha, beta=beta), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda m, t: F.mm(m, t),
        lambda m, t: F.bmm(m, m),
        lambda m, t: F.bmm(t, t[:1]),
        lambda m, t: F.addmm(m, t, m),
        lambda m, t: F.matmul(m, m[:3]),
    ],
    ids=["mm of 3-d", "bmm of 2-d", "bmm of two batches", "addmm of 3-d", "sizes"],
)
def test_products_refused_by_the_short_way_are_explained_by_the_long(call) -> None:
    with pytest.raises(RuntimeError, match=r"neurokern\.(mm|bmm|addmm|matmul): .*expected"):
        call(torch.randn(4, 4), torch.randn(2, 4, 4))


def test_in_place_without_a_gradient_bumps_the_version() -> None:
    x = torch.randn(5)
    before, w, v = x.clone(), leaf(5), x._version
    product = w * x  # saves x
    assert F.relu(x, inplace=True) is x
    assert x._version == v + 1
    torch.testing.assert_close(x, before.relu(), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def neg(x: torch.Tensor) -> torch.Tensor:
    return torch._neg_view(x)


def test_what_was_plain_before_may_not_be_now() -> None:
    """One guard answers for all that was asked of the last call's tensors: whatever changes must be noticed."""
    torch.manual_seed(0)
    x, w = torch.randn(4, 8), torch.randn(3, 8)
    for _ in range(3):  # what was learnt is used from the second call on
        for a, b in ((x, w), (x.double(), w.double()), (x[None], w), (x, torch.nn.Parameter(w))):
            torch.testing.assert_close(F.linear(a, b), torch.nn.functional.linear(a, b), rtol=1e-5, atol=1e-5)
        for a in (neg(x), neg(x).data, torch.complex(x, x).conj().imag):
            torch.testing.assert_close(F.gelu(x), torch.nn.functional.gelu(x))
            torch.testing.assert_close(F.gelu(a), torch.nn.functional.gelu(a))
            torch.testing.assert_close(F.matmul(a, w.mT), torch.matmul(a, w.mT), rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert F.gelu(x).dtype == torch.float32
            assert F.linear(x, w).dtype == F.matmul(x, w.mT).dtype == torch.bfloat16
        assert F.linear(x, w).dtype == F.matmul(x, w.mT).dtype == torch.float32
        assert F.matmul(x.requires_grad_(), w.mT).requires_grad
        assert F.gelu(x).requires_grad
        with torch.no_grad():
            assert not F.gelu(x).requires_grad
        with torch.inference_mode():
            inside = F.gelu(x)
            assert inside.is_inference()
        torch.testing.assert_close(F.gelu(inside), torch.nn.functional.gelu(inside))
        assert not F.gelu(x.requires_grad_(False)).requires_grad
        torch.testing.assert_close(torch.func.vmap(F.gelu)(x), torch.nn.functional.gelu(x))
        grad = torch.func.grad(lambda t: F.gelu(t).sum())(x)
        torch.testing.assert_close(grad, torch.func.grad(lambda t: torch.nn.functional.gelu(t).sum())(x))
        assert torch.jit.trace(F.gelu, x, check_trace=False).graph.findNode("aten::gelu") is not None
        with torch.autograd.forward_ad.dual_level():
            dual = F.gelu(torch.autograd.forward_ad.make_dual(x, x))
            assert torch.autograd.forward_ad.unpack_dual(dual).tangent is not None
        torch.testing.assert_close(F.matmul(x, x.mT), torch.matmul(x, x.mT))
        square = x[:, :4]
        torch.testing.assert_close(F.matmul(square, square), torch.matmul(square, square))
        with pytest.raises(RuntimeError, match="linear"):
            F.linear(x, w.double())
        assert F.relu(x.to(torch.int32)).dtype == torch.int32


def test_guards_are_torchs() -> None:
    from neurokern.core.torch_hooks import make_guard

    x = torch.randn(3, 4)
    guard = make_guard(x)
    assert guard.check(torch.randn(9, 2).mT)
    for other in (x.double(), x[0], neg(x), torch.nn.Parameter(x), x.clone().requires_grad_()):
        assert not guard.check(other)


IN_PLACE = {
    "relu": (F.relu_, torch.relu_),
    "relu6": (lambda x: F.relu6(x, inplace=True), lambda x: torch.nn.functional.relu6(x, inplace=True)),
    "hardtanh": (F.hardtanh_, torch.nn.functional.hardtanh_),
    "hardtanh, an int": (lambda x: F.hardtanh_(x, -2, 1.0), lambda x: torch.nn.functional.hardtanh_(x, -2, 1.0)),
    "leaky_relu": (F.leaky_relu_, torch.nn.functional.leaky_relu_),
    "leaky_relu, negative slope": (lambda x: F.leaky_relu_(x, -0.5), lambda x: x.where(x > 0, -0.5 * x)),
    "silu": (lambda x: F.silu(x, inplace=True), lambda x: torch.nn.functional.silu(x, inplace=True)),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("part", [False, True], ids=["whole", "view"])
def test_in_place_with_a_gradient(name: str, part: bool) -> None:
    """The value, its version, first and second derivatives, upon a computed tensor and upon a view of one.

    In float64, where ours and torch's differ by nothing that counts; how right the others are says the test below.
    """
    dtype = torch.float64
    ours, torchs = IN_PLACE[name]
    x0 = torch.randn(6, 50, dtype=dtype)
    x0[0, :6] = torch.tensor([-2.0, -1, -0.0, 0, 1, 6])

    def both(f) -> list[torch.Tensor]:
        x = x0.clone().requires_grad_()
        y = x * torch.linspace(0.5, 3, 50, dtype=dtype)
        version = y._version
        into = y[1:5] if part else y
        out = f(into)
        assert out is into or f is not ours
        if f is ours:
            assert y._version > version
            torch.testing.assert_close(y[1:5] if part else y, out, rtol=0, atol=0, equal_nan=True)
        out = torch.cat([y[:1], out, y[5:]]) if part else out
        (gx,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return [out, gx, torch.autograd.grad(gx.square().sum(), x)[0]]

    torch.testing.assert_close(both(ours), both(torchs), equal_nan=True)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("s", [s for s in all_specs() if s.registered[-1].endswith("_")], ids=lambda s: s.id)
def test_in_place_is_as_right_as_out_of_place(s: OpSpec, dtype: torch.dtype, order: int, seed: int) -> None:
    """By the house's rule, upon a tensor that was computed."""
    in_place = dataclasses.replace(s, op=lambda x, **kwargs: s.op(x * 1, **kwargs, inplace=True))
    for want in expected(s, dtype, "cpu", seed, order):
        assert not judge(in_place, want, order)


def test_in_place_with_a_gradient_is_the_short_way() -> None:
    y = leaf(3, 8) * 2
    assert F.relu_(y) is y
    assert type(y.grad_fn).__name__ == "DirectUnaryFromOutputBackward"
    with pytest.raises(RuntimeError, match="leaf"):
        F.relu_(leaf(3))


def test_in_place_where_something_was_saved() -> None:
    """What is written to after it was saved is noticed, and what relu_ itself saved, too."""
    x = leaf(3, 8)
    y = x.exp()
    F.relu_(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = x * 2
    F.relu_(y)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_in_place_upon_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        x = torch.randn(8)
        torch.testing.assert_close(F.relu_(x.clone()), torch.relu(x))
    with pytest.raises(RuntimeError, match="inference"):
        F.relu_(x)


def test_in_place_upon_memory_shared_by_elements() -> None:
    x = (leaf(1) * 2).expand(8)
    with pytest.raises(RuntimeError, match=r"neurokern\.relu: argument input of shape \[8\] has more than one"):
        F.relu_(x)
