"""Every backend refuses what every other does, before it writes anything; what is saved is what torch saves."""

from __future__ import annotations

import math
from functools import partial

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern.testing import Maker
from neurokern.testing.spec import OpSpec, all_specs
from neurokern.testing.targets import Target, interpret_without_gpu
from torch import Tensor

interpret_without_gpu()
IN_PLACE = [s for s in all_specs() if any(name.endswith("_") for name in s.registered)]
VIEWS = {
    "a slice": lambda p: p[1:3],
    "transposed": lambda p: p.t(),
    "by chunk": lambda p: (p * 1).chunk(2)[0],
    "by unbind": lambda p: (p * 1).unbind()[1],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("s", IN_PLACE, ids=lambda s: s.id)
def test_in_place_refuses_before_it_writes(s: OpSpec, view: str) -> None:
    p = torch.full((4, 4), -1.0, requires_grad=True)
    part = VIEWS[view](p)
    kwargs = next(iter(s.samples(Maker.seeded(0)))).kwargs
    with pytest.raises(RuntimeError, match="view"):
        s.torch(part, **kwargs, inplace=True)
    part = VIEWS[view](p)
    before = part.detach().clone()
    with pytest.raises(RuntimeError, match=rf"neurokern\.{s.name}: .*view"):
        s.op(part, **kwargs, inplace=True)
    assert torch.equal(part, before)


@pytest.mark.parametrize("target", [Target("triton"), Target("cuda", emulated=True), Target("cpu")], ids=lambda t: t.id)
@pytest.mark.parametrize("s", [s for s in all_specs() if s.bad], ids=lambda s: s.id)
def test_a_named_backend_refuses_as_the_default_does(s: OpSpec, target: Target) -> None:
    if (why := target.missing()) is not None:
        pytest.skip(why)
    for wrong in s.bad(Maker.seeded(0, device=target.device)):

        def refusal() -> Exception | None:
            try:
                s.op(*wrong.args, **wrong.kwargs)  # noqa: B023
            except Exception as error:
                return error
            return None

        usual = refusal()
        with target.active():
            named = refusal()
        assert named is not None, wrong.why
        if usual is not None and "no kernel" not in str(
            usual
        ):  # else torch took it, and a backend by name never hands on
            assert (type(named), str(named)) == (type(usual), str(usual)), wrong.why


def test_gradients_of_gated_units_do_not_overflow_on_their_way() -> None:
    x = torch.tensor([6e4, -14.0]).half().requires_grad_()
    (g,) = torch.autograd.grad(F.glu(x, -1), x, torch.tensor([100.0]).half(), create_graph=True)
    wide = x.detach().double().requires_grad_()
    (want,) = torch.autograd.grad(torch.nn.functional.glu(wide, -1), wide, torch.tensor([100.0]).double())
    torch.testing.assert_close(g.double(), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("target", [Target("cpu"), Target("cuda", emulated=True), Target("triton")], ids=lambda t: t.id)
def test_what_is_multiplied_by_nothing_is_not_read(target: Target) -> None:
    if (why := target.missing()) is not None:
        pytest.skip(why)
    with target.active():
        ones = partial(torch.ones, device=target.device)
        nan = ones(2, 2) * math.nan
        assert F.addmm(ones(2), nan, ones(2, 2), alpha=0).tolist() == [[1, 1], [1, 1]]
        for alpha in (math.inf, math.nan, -math.inf):
            got = F.addmm(ones(2), ones(2, 0), ones(0, 2), alpha=alpha, beta=3)
            assert got.tolist() == [[3, 3], [3, 3]]
        assert F.addmm(nan, ones(2, 2), ones(2, 2), beta=0).tolist() == [[2, 2], [2, 2]]


def saved(f, *args: Tensor) -> list[int]:
    """The elements of each tensor that autograd keeps."""
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        f(*args)
    return kept


@pytest.mark.parametrize("shapes", [((3, 5), (5, 5)), ((2, 3, 5), (5, 5)), ((5,), (5, 5)), ((2, 3, 5), (5,))], ids=str)
def test_a_product_with_a_frozen_operand_keeps_only_that(shapes: tuple) -> None:
    h, w = torch.randn(shapes[0], requires_grad=True) * 1, torch.randn(shapes[1])
    assert saved(F.matmul, h, w) == [w.numel()]
    assert saved(F.matmul, h.detach(), w.clone().requires_grad_()) == [h.numel()]
    leaf = torch.randn(shapes[0], requires_grad=True)
    for f in (F.matmul, torch.matmul):
        h = leaf * 1
        y = f(h, w)
        h += 1
        y.sum().backward()


@pytest.mark.parametrize("f", [F.gelu, F.relu, lambda x: F.softmax(x, -1), lambda x: F.matmul(x, x)], ids=range(4))
def test_what_a_hook_unpacks_is_judged_as_arguments_are(f) -> None:
    x = torch.randn(4, 4, requires_grad=True)
    (want,) = torch.autograd.grad(f(x).square().sum(), x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: -t, lambda t: torch._neg_view(t)):
        y = f(x)
    (got,) = torch.autograd.grad(y, x, 2 * y.detach())
    torch.testing.assert_close(got, want)


def test_a_lazy_zero_is_a_zero() -> None:
    zero = torch._efficientzerotensor(3, 4)
    assert F.relu(zero).tolist() == torch.zeros(3, 4).tolist()
    x = torch.randn(3, 4, requires_grad=True)
    (g,) = torch.autograd.grad(F.gelu(x), x, zero)
    assert g.count_nonzero() == 0
    assert F.linear(zero, torch.randn(5, 4)).count_nonzero() == 0
    with neurokern.strict():
        assert F.softmax(zero, -1).tolist() == [[0.25] * 4] * 3


@pytest.mark.parametrize("target", [Target("cpu"), Target("cuda", emulated=True), Target("triton")], ids=lambda t: t.id)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["hardshrink", "softshrink"])
def test_lambd_is_a_number_of_the_dtype(name: str, dtype: torch.dtype, target: Target) -> None:
    """What is just the rounded lambd is on torch's side of it."""
    if (why := target.missing()) is not None:
        pytest.skip(why)
    ours, torchs = getattr(F, name), getattr(torch.nn.functional, name)
    for lambd in (0.1, 0.3, 0.7):
        near = torch.tensor(lambd, dtype=dtype, device=target.device)
        x = torch.stack([near, -near, torch.nextafter(near, near * 2), torch.nextafter(near, near * 0), near * 3])
        with target.active():
            leaf = x.clone().requires_grad_()
            y = ours(leaf, lambd)
            (g,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        leaf = x.clone().requires_grad_()
        want = torchs(leaf, lambd)
        torch.testing.assert_close(y, want, rtol=1e-2, atol=1e-6)
        assert torch.equal(y == 0, want == 0)
        assert torch.equal(g, torch.autograd.grad(want, leaf, torch.ones_like(want))[0])
