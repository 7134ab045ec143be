"""What `make gpu` runs first: the smallest sample of every op and dtype, so that seconds tell which kernels work."""

from __future__ import annotations

import math

import pytest
import torch
from neurokern.testing import OpSpec, Target, judge
from neurokern.testing.run import expected_of, samples_of
from neurokern.testing.spec import Maker, Sample

pytestmark = pytest.mark.gpu


def size(sample: Sample) -> float:
    """Elements of all arguments; those of an empty sample tell nothing."""
    sizes = [t.numel() for t in (*sample.args, *sample.kwargs.values()) if isinstance(t, torch.Tensor)]
    return sum(sizes) if all(sizes) else math.inf


@pytest.mark.parametrize("target", [Target("cuda"), Target("triton")], ids=lambda t: t.id)
def test_the_smallest_sample(spec: OpSpec, dtype: torch.dtype, on: Target, seed: int) -> None:
    if on.backend not in spec.backends:
        pytest.skip(f"{spec.id} has no kernel for {on.backend}")
    order = int(spec.differentiable)
    make = Maker.seeded(seed, spec.id, order, dtype=dtype, device=on.device)
    sample = min(samples_of(spec, make, order), key=size)
    wrong = judge(spec, expected_of(spec, sample, make), order)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
