"""Every sample of every spec against float64, output and derivatives, on every backend and instruction set."""

from __future__ import annotations

import pytest
import torch
from neurokern.testing import OpSpec, Target, expected, judge


def check(spec: OpSpec, dtype: torch.dtype, target: Target, seed: int, order: int) -> None:
    if target.backend not in spec.backends:
        pytest.skip(f"{spec.id} has no kernel for {target.backend}")
    wrong = []
    for want in expected(spec, dtype, target.device, seed, order):
        if not (target.interpreted and want.sample.heavy):
            wrong += judge(spec, want, order)
    if wrong:
        pytest.fail(f"{spec.id} on {target.id}, {dtype}, seed {seed}:\n" + "\n".join(wrong), pytrace=False)


def test_output_and_gradients(spec: OpSpec, dtype: torch.dtype, on: Target, seed: int) -> None:
    check(spec, dtype, on, seed, 1 if spec.differentiable else 0)


@pytest.mark.specs_with("smooth")
def test_second_derivatives(spec: OpSpec, dtype: torch.dtype, on: Target, seed: int) -> None:
    check(spec, dtype, on, seed, 2)
