"""Gradients of products by the common way in C: which are computed, of what shapes and layouts, what autograd sees."""

from __future__ import annotations

from itertools import product

import neurokern
import neurokern.functional as F
import pytest
import torch

SHAPES = [
    ((5, 3), (3, 4)),
    ((6, 5, 3), (6, 3, 4)),
    ((2, 3, 5, 3), (2, 3, 3, 4)),
    ((7,), (7,)),
    ((5, 7), (7,)),
    ((7,), (7, 4)),
    ((2, 5, 7), (7,)),
    ((7,), (2, 7, 4)),
    ((2, 6, 5, 3), (3, 4)),
    ((5, 3), (2, 3, 4)),
    ((2, 1, 5, 3), (6, 3, 4)),
    ((1, 5, 3), (6, 3, 4)),
    ((5, 1), (1, 4)),
    ((0, 3), (3, 4)),
    ((5, 0), (0, 4)),
    ((2, 0, 3), (3, 4)),
]
LAYOUTS = {
    "contiguous": lambda *shape: torch.randn(shape),
    "transposed": lambda *shape: torch.randn(shape[::-1]).permute(*range(len(shape) - 1, -1, -1)),
    "sliced": lambda *shape: torch.randn([2 * s for s in shape])[tuple(slice(None, None, 2) for _ in shape)],
    "expanded": lambda *shape: torch.randn(()).expand(shape),
    "negated": lambda *shape: torch._neg_view(torch.randn(shape)),
}


def leaf(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=grad)


def taken(y: torch.Tensor) -> bool:
    return type(y.grad_fn).__name__.startswith("DirectMatmul")


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)], ids=["both", "left", "right"])
def test_gradients_are_torchs_and_only_those_needed(shapes, needs) -> None:
    a, b = (leaf(*s, dtype=torch.float64, grad=n) for s, n in zip(shapes, needs, strict=True))
    y, expected = F.matmul(a, b), torch.matmul(a, b)
    assert taken(y)
    g = torch.randn_like(y)
    for t in (y, expected):
        with neurokern.trace() as launches:
            t.backward(g)
        assert t is not y or len(launches) <= sum(needs)  # empty ones are not launched
        for x in (a, b):
            if t is y and x.grad is not None:
                x.first, x.grad = x.grad, None
    for x, n in zip((a, b), needs, strict=True):
        assert (x.grad is not None) == n == hasattr(x, "first")
        if n:
            torch.testing.assert_close(x.first, x.grad)


@pytest.mark.parametrize("layout, of", list(product(LAYOUTS, "abg")))
@pytest.mark.parametrize("shapes", [((5, 3), (3, 4)), ((2, 5, 3), (2, 3, 4)), ((2, 5, 3), (3, 4))], ids=str)
def test_any_layout(shapes, layout: str, of: str) -> None:
    a, b = (LAYOUTS[layout if of == n else "contiguous"](*s) for n, s in zip("ab", shapes, strict=True))
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    y = F.matmul(a, b)
    g = LAYOUTS[layout if of == "g" else "contiguous"](*y.shape)
    made = torch.autograd.grad(y, (a, b), g)
    torch.testing.assert_close(made, torch.autograd.grad(torch.matmul(a, b), (a, b), g))
    again = torch.autograd.grad(F.matmul(a, b), (a, b), g)
    assert all(torch.equal(one, other) for one, other in zip(made, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves(dtype: torch.dtype) -> None:
    a, b = leaf(33, 17, dtype=dtype), leaf(17, 9, dtype=dtype)
    g = torch.randn(33, 9).to(dtype)
    for made, exact in zip(
        torch.autograd.grad(F.mm(a, b), (a, b), g),
        (g.double() @ b.double().mT, a.double().mT @ g.double()),
        strict=True,
    ):
        assert made.dtype == dtype
        torch.testing.assert_close(made, exact.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("alpha, beta", [(1, 1), (2, 1), (0.5, -1.25)])
@pytest.mark.parametrize("shape", [(5, 4), (4,), (5, 1), (1, 1)], ids=str)
def test_addmm(shape, alpha: float, beta: float) -> None:
    leaves = leaf(*shape), leaf(5, 3), leaf(3, 4)
    y = F.addmm(*leaves, alpha=alpha, beta=beta)
    assert taken(y)
    g = torch.randn_like(y)
    expected = torch.autograd.grad(torch.addmm(*leaves, alpha=alpha, beta=beta), leaves, g)
    torch.testing.assert_close(torch.autograd.grad(y, leaves, g), expected)


@pytest.mark.parametrize("shapes", [s for s in SHAPES if 0 not in (*s[0], *s[1])], ids=str)
def test_a_graph_of_the_gradient(shapes) -> None:
    leaves = [leaf(*s, dtype=torch.float64) for s in shapes]

    def second(f) -> tuple[torch.Tensor, ...]:
        y = f(*leaves)
        grads = torch.autograd.grad(y, leaves, torch.cos(y), create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in grads), leaves)

    torch.testing.assert_close(second(F.matmul), second(torch.matmul))


def test_a_graph_of_the_gradient_of_addmm() -> None:
    leaves = [leaf(*s, dtype=torch.float64) for s in ((4,), (5, 3), (3, 4))]

    def second(f) -> tuple[torch.Tensor, ...]:
        y = f(*leaves, alpha=0.5, beta=2.0)
        grads = torch.autograd.grad(y, leaves, torch.cos(y), create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in grads), leaves)

    torch.testing.assert_close(second(F.addmm), second(torch.addmm))


def test_what_is_saved_may_not_change_but_the_residual_may() -> None:
    a, b, c = leaf(5, 3), leaf(3, 4), leaf(5, 4)
    for changed in (0, 1):
        operands = [a * 1, b * 1]
        y = F.mm(*operands)
        operands[changed].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    residual = c * 1
    y = F.addmm(residual, a, b)
    residual.add_(1)  # torch.addmm allows it, too
    torch.testing.assert_close(torch.autograd.grad(y.sum(), c)[0], torch.ones(5, 4))


def test_hooks_of_saved_tensors_and_of_gradients() -> None:
    a, b = leaf(5, 3), leaf(3, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.double(), lambda t: t.float()):
        y = F.mm(a, b)
    seen = []
    a.register_hook(lambda g: seen.append(g.shape) or 2 * g)
    y.register_hook(lambda g: 3 * g)
    ga, gb = torch.autograd.grad(y, (a, b), torch.ones(5, 4))
    assert seen == [(5, 3)]
    torch.testing.assert_close((ga, gb), (6 * torch.ones(5, 4) @ b.mT, 3 * a.mT @ torch.ones(5, 4)))


def test_autocast_around_forward_or_backward() -> None:
    a, b = leaf(5, 3), leaf(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        low = F.mm(a, b)
    assert low.dtype == torch.bfloat16
    assert taken(low)
    y = F.mm(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        ga, gb = torch.autograd.grad(y, (a, b), torch.ones(5, 4))
    torch.testing.assert_close((ga, gb), (torch.ones(5, 4) @ b.mT, a.mT @ torch.ones(5, 4)))


def test_one_tensor_twice_and_an_undefined_gradient() -> None:
    x = leaf(4, 4)
    g = torch.randn(4, 4)
    torch.testing.assert_close(torch.autograd.grad(F.mm(x, x), x, g), torch.autograd.grad(x @ x, x, g))

    class Stops(torch.autograd.Function):
        @staticmethod
        def forward(ctx, t):
            return t.clone()

        @staticmethod
        def backward(ctx, _):
            return None

    torch.testing.assert_close(torch.autograd.grad(Stops.apply(F.mm(x, x)) + x, x, g)[0], g)


def test_the_kernel_refuses_what_does_not_fit() -> None:
    from neurokern import _C

    g, a, b = torch.randn(5, 4), torch.randn(5, 3), torch.randn(3, 4)
    needs = (True, True, False)
    for wrong in ((g[:4], a, b), (g, a[:, :2], b), (g[0], a, b), (g, a, b[:, :2]), (g[0, 0], a, b), (g.double(), a, b)):
        with pytest.raises(RuntimeError, match="neurokern"):
            _C.matmul_backward(*wrong, "matmul", 1.0, 1.0, None, needs)
    with pytest.raises(TypeError, match="argument wants"):
        _C.matmul_backward(g, a, b, "matmul", 1.0, 1.0, None, None)
    with pytest.raises(TypeError, match="None, but a gradient needs it"):
        _C.matmul_backward(g, None, b, "matmul", 1.0, 1.0, None, needs)
    with pytest.raises(TypeError, match="None, but a gradient needs it"):
        _C.linear_backward(g, a, None, (True, True, True, False))
