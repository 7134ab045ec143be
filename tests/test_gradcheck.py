"""First and second derivatives against finite differences, in float64, at points where they exist."""

from __future__ import annotations

import pytest
import torch
from neurokern.testing import Maker, OpSpec, Target, all_specs
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._pytree import tree_flatten, tree_unflatten


@pytest.mark.specs_with("smooth")
@pytest.mark.backends("auto", few=False)  # the other kernels are judged in test_correctness.py
def test_finite_differences(spec: OpSpec, on: Target, seed: int) -> None:
    make = Maker.seeded(seed, spec.id, "gradcheck", dtype=torch.float64, device=on.device)
    for sample in spec.smooth(make):
        flat, tree = tree_flatten((sample.args, sample.kwargs))
        tensors = [i for i, v in enumerate(flat) if isinstance(v, torch.Tensor) and v.is_floating_point()]
        leaves = tuple(flat[i].detach().requires_grad_() for i in tensors)

        def f(*given, flat=flat, tensors=tensors, tree=tree):
            values = list(flat)
            for i, t in zip(tensors, given, strict=True):
                values[i] = t
            args, kwargs = tree_unflatten(values, tree)
            return spec.op(*args, **kwargs)

        where = f"{spec.id} on {on.id}, sample '{sample.why}', seed {seed}"
        try:
            gradcheck(f, leaves)
            gradgradcheck(f, leaves)
        except Exception as error:
            pytest.fail(f"{where}: {error}", pytrace=False)


def without_second_derivative(s: OpSpec) -> bool:
    """Whether torch has one that is zero throughout."""
    x = torch.linspace(-8, 8, 37).requires_grad_()
    y = s.torch(x, **next(iter(s.samples(Maker.seeded(0)))).kwargs)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    if not g.requires_grad or g.grad_fn.name().endswith("NotImplemented"):  # no graph, or torch has no formula
        return False
    (gg,) = torch.autograd.grad(g.sum(), x, allow_unused=True)
    return gg is None or not gg.any()


FLAT = [s for s in all_specs() if s.act and s.family == "activation" and without_second_derivative(s)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("s", FLAT, ids=lambda s: s.id)
def test_second_derivatives_that_are_zero_stay_so(s: OpSpec, dtype: torch.dtype) -> None:
    kwargs, found = next(iter(s.samples(Maker.seeded(0)))).kwargs, []
    for f in (s.op, s.torch):
        x = torch.linspace(-8, 8, 37, dtype=dtype).requires_grad_()
        g = torch.tensor([torch.inf, -torch.inf, torch.nan, 1]).repeat(10)[:37].to(dtype).requires_grad_()
        (gx,) = torch.autograd.grad(f(x, **kwargs), x, g, create_graph=True)
        found.append(torch.autograd.grad(gx, x, torch.full_like(x, torch.inf))[0])
    assert torch.equal(*found)
