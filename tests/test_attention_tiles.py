"""Attention on the CPU by tiles: lengths beyond a block, heads that threads share, few queries, what no 0 may meet."""

from __future__ import annotations

from typing import Any

import neurokern as nk
import neurokern.functional as F
import pytest
import torch
from neurokern import _C
from neurokern.ops.attention import Rules, attention_by_torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def reference(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    left, right = more.get("window") or (-1, -1)
    bottom = more.get("causal_align") == "bottom-right"
    rules = Rules(left, 0 if more.get("is_causal") else right, more.get("chunk") or 0, bottom, True)
    given = [more.get(n) for n in ("mask", "bias", "alibi_slopes", "sink", "cu_seqlens_q", "cu_seqlens_k", "seed")]
    return attention_by_torch(
        q, k, v, *given, more.get("scale"), more.get("softcap", 0.0), more.get("dropout_p", 0.0), rules
    )


def wide(t: Any) -> Any:
    return t.double() if isinstance(t, Tensor) and t.is_floating_point() else t


def compare(q: Tensor, k: Tensor, v: Tensor, tolerance: float, **more: Any) -> None:
    """Output, lse and gradients against float64, relative to the largest number of each."""
    inputs = [t.detach().requires_grad_() for t in (q, k, v, *(more[n] for n in ("bias", "sink") if n in more))]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    results = []
    for x, f in ((inputs, lambda *a, **m: F.attention(*a, enable_gqa=True, return_lse=True, **m)), (exact, reference)):
        given = dict(more) if f is not reference else {n: wide(t) for n, t in more.items()}
        given.update(zip([n for n in ("bias", "sink") if n in more], x[3:], strict=True))
        out, lse = f(*x[:3], **given)
        g = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape).to(out.dtype)
        seen = lse.masked_fill(lse == -torch.inf, 0)
        results.append([out, seen, *torch.autograd.grad([out, seen], x, [g, torch.full_like(lse, 0.5)])])
    names = ("output", "lse", "dq", "dk", "dv", "dbias or dsink", "dsink")
    for name, ours, right in zip(names, *results, strict=False):
        wrong = (ours.double() - right).abs().max() / right.abs().max().clamp_min(1e-3)
        assert wrong <= (1e-5 if name == "lse" else tolerance), (name, wrong.item())


def bound(dtype: torch.dtype) -> float:
    return {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)


def given(name: str, dtype: torch.dtype, heads: int, queries: int, keys: int) -> dict[str, Any]:
    causal = {"is_causal": True, "causal_align": "bottom-right"}
    every: dict[str, dict[str, Any]] = {
        "nothing": {},
        "causal": causal,
        "window": {"window": (70, 3)},
        "chunk": {"chunk": 150, "is_causal": True},
        "mask": {"mask": numbers(queries, keys) > -0.5},
        "bias": {"bias": numbers(heads, queries, keys, dtype=dtype)},
        "shared bias": {"bias": numbers(queries, 1, dtype=dtype), **causal},
        "slopes": {"alibi_slopes": torch.tensor([2.0**-i for i in range(1, heads + 1)]), **causal},
        "softcap": {"softcap": 3.0},
        "sink": {"sink": numbers(heads, dtype=dtype)},
        "dropout": {"dropout_p": 0.3, "seed": torch.tensor([2**40 + 7, 11])},
    }
    return every[name]


RULES = (
    "nothing", "causal", "window", "chunk", "mask", "bias", "shared bias", "slopes", "softcap", "sink", "dropout",
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_rules_across_blocks(rule: str, dtype: torch.dtype) -> None:
    q, k, v = (
        numbers(1, 2, 131, 24, dtype=dtype),
        numbers(1, 1, 403, 24, dtype=dtype),
        numbers(1, 1, 403, 40, dtype=dtype),
    )
    compare(q, k, v, bound(dtype), **given(rule, dtype, 2, 131, 403))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_rules_of_few_queries(rule: str, dtype: torch.dtype) -> None:
    q, k, v = (
        numbers(1, 6, 2, 40, dtype=dtype),
        numbers(1, 2, 1201, 40, dtype=dtype),
        numbers(1, 2, 1201, 24, dtype=dtype),
    )
    compare(q, k, v, bound(dtype), **given(rule, dtype, 6, 2, 1201))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_heads_that_threads_share(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for queries in (3, 300):
            compare(numbers(1, 4, queries, 32), numbers(1, 4, 700, 32), numbers(1, 4, 700, 32), 1e-5, is_causal=True)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
def test_every_instruction_set(level: str) -> None:
    before = _C.cpu_level()
    try:
        _C.set_cpu_level(level)
    except ValueError:
        pytest.skip(f"this machine has no {level}")
    try:
        for queries in (2, 40):
            q, k, v = numbers(1, 2, queries, 20), numbers(1, 1, 330, 20), numbers(1, 1, 330, 20)
            compare(q, k, v, 1e-5, is_causal=True, causal_align="bottom-right")
    finally:
        _C.set_cpu_level(before)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("queries", [2, 60])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_what_is_hidden_counts_nothing(queries: int, number: float, dtype: torch.dtype) -> None:
    """Keys and values that are NaN or infinite behind a mask, for half of the queries or for all."""
    q, k, v = (numbers(1, 2, n, 16, dtype=dtype) for n in (queries, 300, 300))
    mask = torch.ones(queries, 300, dtype=torch.bool)
    mask[:, 290:] = False
    mask[queries // 2 :, 100] = False
    spoiled = [k.clone(), v.clone()]
    for t in spoiled:
        t[:, :, 290:] = number
    zeros = [t.clone() for t in (k, v)]
    for t in zeros:
        t[:, :, 290:] = 0
    x = [t.requires_grad_() for t in (q, *spoiled)]
    y = [t.detach().requires_grad_() for t in (q, *zeros)]
    a, b = F.attention(*x, mask=mask), F.attention(*y, mask=mask)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    g = torch.ones_like(a)
    for ours, right in zip(torch.autograd.grad(a, x, g), torch.autograd.grad(b, y, g), strict=True):
        torch.testing.assert_close(ours, right, rtol=2e-2, atol=2e-2)
    v2 = v.clone()
    v2[0, :, 100] = torch.nan
    out = F.attention(q, k, v2, mask=mask)
    assert out[:, :, : queries // 2].isnan().all()
    assert not out[:, :, queries // 2 :].isnan().any()


def test_the_same_bits_every_time() -> None:
    x = [numbers(1, h, 517, 32).requires_grad_() for h in (4, 1, 1)]
    runs = []
    for _ in range(3):
        out = F.attention(*x, is_causal=True, enable_gqa=True)
        runs.append([out, *torch.autograd.grad(out.sum(), x)])
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert torch.equal(a, b)


def test_sequences_of_many_lengths() -> None:
    ends = torch.tensor([0, 5, 5, 305, 306, 700])
    q, k, v = numbers(4, 710, 32), numbers(2, 710, 32), numbers(2, 710, 32)
    compare(q, k, v, 1e-5, is_causal=True, cu_seqlens_q=ends, cu_seqlens_k=ends)


def test_it_runs_by_tiles() -> None:
    q = numbers(1, 2, 300, 32)
    with nk.trace() as seen:
        F.attention(q, q, q)
        F.attention(q[:, :, :1], q, q)
    kernels = [event.kernel for event in seen]
    assert all("f32" in kernel for kernel in kernels), kernels
    assert "few" in str(seen[1].plan)
