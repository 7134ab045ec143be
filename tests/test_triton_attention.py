"""Attention's Triton kernels in tiles so small that short sequences have many, and with what is hidden infinite or NaN.

Runs in a process of its own, as TRITON_INTERPRET decides when kernels are decorated.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
pytestmark = pytest.mark.slow
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")

if INTERPRETED:
    import neurokern
    import neurokern.functional as F
    from neurokern.kernels.triton import attention, attention_backward, attention_cache
    from neurokern.kernels.triton._attention import Plan
    from neurokern.ops.attention import Rules, attention_by_torch
else:

    def test_the_rest(in_a_process_of_its_own):
        in_a_process_of_its_own("1")


needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="runs in the process started above")
INF, NAN = float("inf"), float("nan")


@pytest.fixture(params=["whole rows", "columns in parts"])
def small_tiles(request, monkeypatch):
    whole = request.param == "whole rows"
    plan = Plan(16, 16, 32, 32, True, 4, 1, "ieee") if whole else Plan(16, 16, 16, 16, False, 4, 1, "ieee")
    for module in (attention, attention_backward):
        monkeypatch.setattr(module, "config", lambda *_: plan)


def heads(queries: int, keys: int) -> list[Tensor]:
    return [torch.randn(n, size, 20, dtype=torch.float64) for n, size in ((4, queries), (2, keys), (2, keys))]


RULES = {
    "causal": {"is_causal": True},
    "causal to the last key": {"is_causal": True, "causal_align": "bottom-right"},
    "a window": {"window": (17, 4)},
    "chunks": {"chunk": 24},
    "chunks and a window to the last key": {"chunk": 24, "window": (30, 9), "causal_align": "bottom-right"},
    "nothing hidden": {},
}


@needs_interpreter
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("sizes", [(50, 50), (20, 65), (65, 20)], ids=str)
def test_every_tile(small_tiles, rules, sizes):
    """Full tiles, partial ones and those that are left out, by queries and by keys."""
    q, k, v = (t.requires_grad_() for t in heads(*sizes))
    given = RULES[rules]
    with neurokern.backend("triton"):
        out = F.attention(q, k, v, enable_gqa=True, **given)
    left, right = given.get("window", (-1, -1))
    bottom = given.get("causal_align") == "bottom-right"
    numbers = Rules(left, 0 if "is_causal" in given else right, given.get("chunk", 0), bottom, 1)
    want = attention_by_torch(q, k, v, *[None] * 7, None, 0.0, 0.0, numbers)[0]
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(t, (q, k, v), g) for t in (out, want))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@needs_interpreter
@pytest.mark.parametrize("bad", [NAN, INF])
def test_what_is_hidden_counts_nothing(small_tiles, bad):
    """Keys 20 on and query 5 are hidden from all: whatever they hold, and the gradient of that query's output holds,
    the results are the same; key 3 is hidden from query 7 alone, and spoils all results but its own."""
    q, k, v = heads(24, 40)
    g = torch.randn(4, 24, 20, dtype=torch.float64)
    mask = torch.rand(24, 40) < 0.8
    mask[:, 3], mask[:, 20:], mask[5], mask[7, 3] = True, False, False, False

    def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> list[Tensor]:
        given = [t.clone().requires_grad_() for t in (q, k, v)]
        with neurokern.backend("triton"):
            out = F.attention(*given, mask=mask, enable_gqa=True)
        return [out.detach(), *torch.autograd.grad(out, given, g)]

    clean = run(q, k, v, g)
    dirty = [t.clone() for t in (q, k, v, g)]
    dirty[0][:, 5], dirty[1][:, 20:], dirty[2][:, 20:], dirty[3][:, 5] = bad, bad, bad, bad
    for ours, want in zip(run(*dirty), clean, strict=True):
        torch.testing.assert_close(ours, want, rtol=1e-12, atol=1e-12)
    seen = v.clone()
    seen[:, 3] = bad
    out = run(q, k, seen, g)[0]
    torch.testing.assert_close(out[:, 7], clean[0][:, 7], rtol=1e-12, atol=1e-12)
    others = [i for i in range(24) if i not in (5, 7)]
    assert (out[:, others].isnan() if bad != bad else out[:, others] == bad).all()


@needs_interpreter
def test_gradients_are_the_same_each_time(small_tiles):
    q, k, v = (t.float().requires_grad_() for t in heads(50, 50))
    bias = torch.randn(50, 50, requires_grad=True)
    runs = []
    for _ in range(2):
        with neurokern.backend("triton"):
            out = F.attention(q, k, v, bias=bias, enable_gqa=True)
        runs.append(torch.autograd.grad(out.square().sum(), (q, k, v, bias)))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@needs_interpreter
@pytest.mark.parametrize("paged", [False, True])
def test_wrong_numbers_of_a_cache_reach_no_other_memory(paged: bool) -> None:
    """On a GPU nobody has looked at lengths and pages before."""
    around = torch.full((6, 2, 8, 16), 7.0)
    cache = around[1:5]
    lengths = torch.tensor([6, -9, 10**9, 2])
    table = torch.tensor([[0, 9], [1, 2], [2, 3], [-4, 10**6]]) if paged else None
    for rows in (torch.zeros(4, 2, 5, 16), torch.ones(4, 2, 1, 16)):
        attention_cache.append_to_cache(cache, rows, lengths, table)
    assert (around[[0, 5]] == 7).all()
    query, out, lse = torch.randn(4, 2, 1, 16), torch.full((4, 2, 1, 16), NAN), torch.full((4, 2, 1), NAN)
    rules = (-1, 0, 0, 1, 0)
    attention_cache.attention_of_cache(out, lse, query, cache, cache, lengths, table, None, None, None, 0.0, rules)
    assert out.isfinite().all()
    assert not lse.isnan().any()
