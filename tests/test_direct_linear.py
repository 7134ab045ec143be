"""A linear layer's gradients by the common way in C: those needed, of every layout, as autograd has them."""

from __future__ import annotations

import neurokern
import neurokern.functional as F
import neurokern.nn as nn
import pytest
import torch

LAYOUTS = {
    "contiguous": lambda *shape: torch.randn(shape),
    "transposed": lambda *shape: torch.randn(shape[::-1]).permute(*range(len(shape) - 1, -1, -1)),
    "sliced": lambda *shape: torch.randn([2 * s for s in shape])[tuple(slice(None, None, 2) for _ in shape)],
    "expanded": lambda *shape: torch.randn(()).expand(shape),
    "negated": lambda *shape: torch._neg_view(torch.randn(shape)),
}
ROWS = [(), (5,), (0,), (3, 4), (2, 1, 4), (1, 1, 1, 2)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def of_torch(x, w, b, r, act):
    y = torch.nn.functional.linear(x, w, b)
    y = getattr(torch.nn.functional, act)(y) if act else y
    return y if r is None else y + r


def close(a: torch.Tensor | None, b: torch.Tensor | None) -> None:
    assert (a is None) == (b is None)
    if a is not None:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("act", [None, "gelu", "relu"])
@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("needs", ["xwbr", "x", "w", "b", "r", "wb"])
def test_gradients_are_torchs_and_only_those_needed(needs: str, rows: tuple[int, ...], act: str | None) -> None:
    shapes = {"x": (*rows, 3), "w": (7, 3), "b": (7,), "r": (*rows, 7)}
    values = {n: torch.randn(s, dtype=torch.float64) for n, s in shapes.items()}
    ours, torchs = ({n: v.clone().requires_grad_(n in needs) for n, v in values.items()} for _ in range(2))
    y = F.linear(ours["x"], ours["w"], ours["b"], activation=act, residual=ours["r"])
    assert type(y.grad_fn).__name__.startswith("DirectLinear")
    expected = of_torch(*torchs.values(), act)
    close(y, expected)
    g = torch.randn_like(y)
    y.backward(g)
    expected.backward(g)
    for n in shapes:
        close(ours[n].grad, torchs[n].grad)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["input", "weight", "gradient"])
def test_layouts(which: str, layout: str) -> None:
    make = {n: LAYOUTS[layout if n == which else "contiguous"] for n in ("input", "weight", "gradient")}
    x, w = make["input"](2, 5, 3).double(), make["weight"](7, 3).double()
    g = make["gradient"](2, 5, 7).double()
    x, w = (t.detach().requires_grad_() for t in (x, w))
    b = torch.randn(7, dtype=torch.float64, requires_grad=True)
    for act in (None, "silu"):
        ours = torch.autograd.grad(F.linear(x, w, b, activation=act), (x, w, b), g)
        for mine, theirs in zip(ours, torch.autograd.grad(of_torch(x, w, b, None, act), (x, w, b), g), strict=True):
            close(mine, theirs)


def test_second_derivatives_and_a_graph_used_twice() -> None:
    x, w, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((4, 3), (2, 3), (2,)))

    def run(y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.autograd.grad(y.sin().sum(), (x, w, b), create_graph=True)
        second = torch.autograd.grad(sum(t.square().sum() for t in first), (x, w, b), retain_graph=True)
        return (*first, *second, *torch.autograd.grad(y.sum(), (x, w, b)))

    for mine, theirs in zip(
        run(F.linear(x, w, b, activation="gelu")), run(of_torch(x, w, b, None, "gelu")), strict=True
    ):
        close(mine, theirs)


def test_saved_tensors_are_torchs_and_freed() -> None:
    layer, x = nn.Linear(3, 2), torch.randn(5, 3)
    y = layer(x)
    with torch.no_grad():
        layer.bias.add_(1)  # no gradient needs it
    y.sum().backward(retain_graph=True)
    with torch.no_grad():
        layer.weight.add_(1)
    y.sum().backward()  # x needs no gradient, but weight was saved
    y = layer(x.requires_grad_())
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        F.linear(x, layer.weight, layer.bias, activation="gelu").sum().backward()
    assert sorted(map(tuple, kept)) == [(2, 3), (5, 2), (5, 3)]


@pytest.mark.parametrize("call", [F.linear, lambda x, w: F.matmul(x, w.mT)], ids=["linear", "matmul"])
@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_only_what_gradients_need_is_kept(call, backend: str) -> None:
    """As torch: of frozen weights the input is let go, and the first layer's weight may change."""
    x, w = torch.randn(5, 3), torch.randn(2, 3)
    for needs, kept in (((True, False), [(2, 3)]), ((False, True), [(5, 3)]), ((True, True), [(2, 3), (5, 3)])):
        x.requires_grad_(needs[0]), w.requires_grad_(needs[1])
        seen = []

        def pack(t: torch.Tensor, seen: list[tuple[int, ...]] = seen) -> torch.Tensor:
            seen.append(tuple(sorted(t.shape)))
            return t

        with neurokern.backend(backend), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            call(x, w).sum().backward()
        assert sorted(seen) == sorted(tuple(sorted(k)) for k in kept)


def test_rows_that_do_not_fold_take_the_long_way() -> None:
    x = torch.randn(4, 6, 3).transpose(0, 1)[::2].requires_grad_()
    w = torch.randn(2, 3, requires_grad=True)
    with neurokern.trace():
        (gw,) = torch.autograd.grad(F.linear(x, w).sum(), w)
    torch.testing.assert_close(gw, torch.autograd.grad(torch.nn.functional.linear(x, w).sum(), w)[0])
