"""alpha and beta of addmm where a product's terms don't count: as in BLAS, what they leave out is not read."""

from __future__ import annotations

import math

import neurokern.functional as F
import pytest
import torch
from neurokern.testing.spec import FLOATS

SIZES = [(2, 2, 2), (1, 3, 1), (40, 33, 65), (3, 1, 300)]  # M, K, N: small, a dot product, tiles with edges, one row


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_alpha_0_leaves_the_operands_unread(on, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, k, n = size
    x = torch.randn(n, device=on.device).to(dtype)
    for wrong in (math.nan, math.inf):
        a, b = x.new_full((m, k), wrong), x.new_ones(k, n)
        assert torch.equal(F.addmm(x, a, b, alpha=0, beta=2), (2 * x).expand(m, n)), wrong
        a, b = x.new_ones(m, k), x.new_full((k, n), wrong)
        assert torch.equal(F.addmm(x, a, b, alpha=0), x.expand(m, n)), wrong


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("alpha", [math.inf, -math.inf, math.nan, 3.0, 0.0])
def test_a_sum_of_nothing_is_0_for_every_alpha(on, alpha: float, dtype: torch.dtype) -> None:
    x = torch.randn(5, device=on.device).to(dtype)
    a, b = x.new_ones(3, 0), x.new_ones(0, 5)
    assert torch.equal(F.addmm(x, a, b, alpha=alpha, beta=0.5), (x / 2).expand(3, 5))
    assert torch.equal(F.addmm(x * math.nan, a, b, alpha=alpha, beta=0), x.new_zeros(3, 5))


@pytest.mark.backends("cpu", "cuda")
def test_sizes_that_do_not_fit_are_refused_all_the_same(on) -> None:
    with pytest.raises(RuntimeError, match=r"neurokern\.\w+: .*mat2.*\[4, 2\]|neurokern\.\w+: .*b has shape \[4, 2\]"):
        F.addmm(*(torch.ones(size, device=on.device) for size in ((2,), (2, 3), (4, 2))), alpha=0)
