"""First and second derivatives against finite differences, in float64, at points where they exist."""

from __future__ import annotations

import pytest
import torch
from neurokern.testing import Maker, OpSpec, Target
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._pytree import tree_flatten, tree_unflatten


@pytest.mark.specs_with("smooth")
@pytest.mark.backends("cpu", "cuda")
def test_finite_differences(spec: OpSpec, on: Target, seed: int) -> None:
    make = Maker.seeded(seed, spec.id, "gradcheck", dtype=torch.float64, device=on.device)
    for sample in spec.smooth(make):
        flat, tree = tree_flatten((sample.args, sample.kwargs))
        tensors = [i for i, v in enumerate(flat) if isinstance(v, torch.Tensor)]
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
