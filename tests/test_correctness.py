"""Every sample of every spec against float64, output and derivatives, on every backend and instruction set."""

from __future__ import annotations

import pytest
import torch
from neurokern.testing import OpSpec, Target, expected, judge


def check(spec: OpSpec, dtype: torch.dtype, target: Target, seed: int, order: int) -> None:
    if target.runs not in spec.backends:
        pytest.skip(f"{spec.id} has no kernel for {target.backend}")
    wrong = []
    judged = [w for w in expected(spec, dtype, target.device, seed, order) if target.takes(w.sample, order)]
    assert judged, f"none of the samples of {spec.id} is chosen for {target.id}"
    for want in judged:
        wrong += judge(spec, want, order)
    if wrong:
        pytest.fail(f"{spec.id} on {target.id}, {dtype}, seed {seed}:\n" + "\n".join(wrong), pytrace=False)


def test_output_and_gradients(spec: OpSpec, dtype: torch.dtype, on: Target, seed: int) -> None:
    check(spec, dtype, on, seed, spec.order)


@pytest.mark.specs_with("smooth")
@pytest.mark.dtypes(torch.float32, torch.float64, torch.float16)  # of the halves, the one that overflows first
def test_second_derivatives(spec: OpSpec, dtype: torch.dtype, on: Target, seed: int) -> None:
    check(spec, dtype, on, seed, 2)
