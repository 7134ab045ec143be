"""Attention to a cache on CUDA, and of few queries: on the emulator with its checkers, against float64 on the CPU."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation
from torch import Tensor

on_the_emulator = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}
EPS = {torch.float32: 2.0**-20, torch.float64: 2.0**-48, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@dataclass
class Case:
    """Sequences of `lengths` rows, to which `tokens` are appended; a page of 0 rows: no pages."""

    why: str
    heads: int = 4
    kv_heads: int = 2
    tokens: int = 1
    size: int = 64
    value_size: int = 0
    lengths: tuple[int, ...] = (150, 69)
    page: int = 0
    layout: str = "heads"
    sink: bool = False
    slopes: bool = False
    options: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("a token"),
    Case("pages of 16", page=16),
    Case("pages of one row", page=1),
    Case("pages that divide no tile", page=24, tokens=2),
    Case("pages larger than a tile", page=128),
    Case("rows outside of heads in memory", layout="rows", page=16),
    Case("a sequence of none", lengths=(0, 70), tokens=3),
    Case("16 rows to the last", heads=8, tokens=2, kv_heads=1, size=128),
    Case("17 rows", heads=17, kv_heads=1, size=128, page=16),
    Case("32 rows, a few tokens", heads=8, kv_heads=1, tokens=4, size=128, page=16),
    Case("65 rows", heads=5, kv_heads=1, tokens=13, size=128, lengths=(100,)),
    Case("128 rows", heads=8, kv_heads=1, tokens=16, size=64, lengths=(100,), page=16),
    Case("many tokens, several tiles of rows", heads=4, kv_heads=2, tokens=70, size=64, lengths=(20,), page=16),
    Case("256", size=256, tokens=2, page=16),
    Case("256, many rows", heads=8, kv_heads=1, tokens=10, size=256, lengths=(60,)),
    Case("larger than any tile", size=264, value_size=300, lengths=(40, 3), page=16),
    Case("sizes of no tile", size=40, value_size=72, page=16, tokens=3),
    Case("odd sizes", size=7, value_size=13, page=3, tokens=2),
    Case("three parts", options={"num_splits": 3}, lengths=(400, 1), page=16),
    Case("more parts than tiles", options={"num_splits": 100}, lengths=(300, 70)),
    Case("a window", options={"window": (70, -1)}, lengths=(300, 50), tokens=2, page=16),
    Case("a window, parts", options={"window": (150, -1), "num_splits": 2}, lengths=(300, 50), tokens=5),
    Case("not causal, a window on both sides", options={"window": (30, 1), "is_causal": False}, tokens=4),
    Case("a sink", sink=True, lengths=(150, 0)),
    Case("a sink, parts", sink=True, lengths=(250, 30), options={"num_splits": 4}, size=128),
    Case("slopes", slopes=True, tokens=3, page=16),
    Case("softcap and a scale", options={"softcap": 3.0, "scale": 0.3}, tokens=2),
    Case("a negative scale", options={"scale": -0.2}, tokens=2),
    Case("a scale that hardly is one, parts", options={"scale": 1e-40, "num_splits": 3}, lengths=(400, 1), page=16),
    Case("everything", heads=6, kv_heads=2, tokens=3, size=40, value_size=24, lengths=(300, 77), page=12, sink=True,
         slopes=True, layout="rows", options={"softcap": 4.0, "window": (200, -1), "num_splits": 3}),
]  # fmt: skip


def cache_of(case: Case, size: int, dtype: torch.dtype, table: Tensor | None) -> Tensor:
    """A cache that holds NaN where no row is."""
    capacity = max(case.lengths) + case.tokens
    if table is None:
        shape = [len(case.lengths), case.kv_heads, capacity, size]
    else:
        shape = [int(table.max()) + 3, case.kv_heads, case.page, size]
    if case.layout == "rows":
        cache = torch.full([shape[0], shape[2], shape[1], size], math.nan).transpose(1, 2).to(dtype)
    else:
        cache = torch.full(shape, math.nan, dtype=dtype)
    for b, n in enumerate(case.lengths):
        rows = torch.randn(case.kv_heads, n, size).to(dtype)
        if table is None:
            cache[b, :, :n] = rows
        else:
            for i in range(n):
                cache[table[b, i // case.page], :, i % case.page] = rows[:, i]
    return cache


def given(case: Case, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Any]]:
    batch, value_size = len(case.lengths), case.value_size or case.size
    table = None
    if case.page:
        each = -(-(max(case.lengths) + case.tokens) // case.page)
        table = torch.randperm(batch * each + 2)[: batch * each].view(batch, each)
        table = table.int() if case.tokens % 2 else table
    caches = [cache_of(case, s, dtype, table) for s in (case.size, value_size)]
    new = [torch.randn(batch, case.kv_heads, case.tokens, s).to(dtype) for s in (case.size, value_size)]
    more: dict[str, Any] = {**case.options, "enable_gqa": True, "return_lse": True, "block_table": table}
    more["cache_seqlens"] = torch.tensor(case.lengths, dtype=torch.int32 if case.page else torch.int64)
    if case.sink:
        more["sink"] = torch.randn(case.heads).to(dtype)
    if case.slopes:
        more["alibi_slopes"] = torch.rand(case.heads) / 4
    return [torch.randn(batch, case.heads, case.tokens, case.size).to(dtype), *caches, *new], more


def wide(args: list[Tensor], more: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
    more = {k: v.double() if k in ("sink", "alibi_slopes") else v for k, v in more.items()}
    return [t.double() for t in args], more


def close(got: Tensor, want: Tensor, unit: float) -> None:
    finite = want.isfinite()
    assert torch.equal(got.isfinite(), finite)
    if finite.any():
        assert (got.double() - want)[finite].abs().max() <= unit * want[finite].abs().max()


@on_the_emulator
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.why)
def test_against_float64(case: Case, dtype: str) -> None:
    kind = DTYPES[dtype]
    args, more = given(case, kind)
    exact, exact_more = wide(args, more)
    want = F.attention_with_kv_cache(*exact, **exact_more)
    with neurokern.emulate(), neurokern.strict():
        got = F.attention_with_kv_cache(*args, **more)
    for x, y in zip(got, want, strict=True):
        close(x, y, 4 * EPS[kind])
    for x, y in zip(args[1:3], exact[1:3], strict=True):
        assert torch.equal(x.double().nan_to_num(9.0), y.nan_to_num(9.0))


@on_the_emulator
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [64, 128, 256])
def test_what_a_token_does_not_see_counts_for_nothing(dtype: str, size: int) -> None:
    """NaN before a window, and in a new row that earlier tokens do not see."""
    kind = DTYPES[dtype]
    q, k, v = (torch.randn(1, heads, rows, size).to(kind) for heads, rows in ((4, 3), (2, 130), (2, 130)))
    k[..., :90, :] = math.nan
    v[..., 40:91, :], v[..., 129, :] = math.inf, math.nan
    lengths = torch.tensor([130])
    options = {"cache_seqlens": lengths, "window": (36, -1), "enable_gqa": True}
    clean = [t.double().clone() for t in (q, k, v)]
    clean[1][..., :90, :], clean[2][..., :91, :], clean[2][..., 129, :] = 0, 0, 0
    want = F.attention_with_kv_cache(*clean, **options)
    for splits in (1, 2):
        with neurokern.emulate(), neurokern.strict():
            got = F.attention_with_kv_cache(q, k, v, num_splits=splits, **options)
        close(got[:, :, :2], want[:, :, :2], 4 * EPS[kind])
        assert got[:, :, 2].isnan().all()


@on_the_emulator
@pytest.mark.parametrize("page", [0, 16, 64])
@pytest.mark.parametrize(("size", "heads", "tokens"), [(64, 4, 1), (128, 8, 1), (128, 8, 4), (128, 8, 16), (256, 8, 4)])
def test_what_moves(size: int, heads: int, tokens: int, page: int) -> None:
    """Keys and values are read once for all heads that share them and all tokens; no bank conflict."""
    case = Case("", heads=heads, kv_heads=1, tokens=tokens, size=size, lengths=(512 - tokens, 300), page=page,
                options={"num_splits": 2})  # fmt: skip
    args, more = given(case, torch.bfloat16)
    with neurokern.emulate(), neurokern.strict(), neurokern.trace() as launches:
        F.attention_with_kv_cache(*args, **more)
    append, again, split, combine = launches
    assert "append" in append.kernel
    assert "append" in again.kernel
    assert (
        split.kernel == f"attention_split_bf16_{size}_{1 if heads * tokens <= 16 else 4 if heads * tokens <= 64 else 8}"
    )
    rows = 2 * heads * tokens
    keys_and_values = (512 + 300 + tokens) * size * 2 * 2
    queries = 2 * rows * size * 2  # by each part
    assert 32 * split.counters["global sectors read"] <= 1.1 * keys_and_values + queries
    results = 2 * rows * (4 * size + 8)  # of two parts, f32
    assert split.counters["global bytes written"] == results
    assert 32 * combine.counters["global sectors written"] <= rows * size * 2 + rows * 32
    assert all(launch.counters["bank conflicts"] == 0 for launch in launches)


@on_the_emulator
def test_what_append_moves() -> None:
    """Each sector of a new row is read once and written once."""
    caches = [torch.zeros(8, 2, 16, 64).bfloat16() for _ in range(2)]
    new = [torch.randn(2, 2, 5, 64).bfloat16() for _ in range(2)]
    more = {"cache_seqlens": torch.tensor([14, 30]), "block_table": torch.randperm(8).view(2, 4)}
    with neurokern.emulate(), neurokern.trace() as launches:
        F.attention_with_kv_cache(torch.randn(2, 2, 1, 64).bfloat16(), *caches, *new, **more)
    assert launches[0].counters["global sectors written"] == 2 * 2 * 5 * 64 * 2 // 32


@on_the_emulator
@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_change_little_and_the_same_call_nothing(dtype: str) -> None:
    kind = DTYPES[dtype]
    q, k, v = (torch.randn(1, heads, rows, 64).to(kind) for heads, rows in ((4, 2), (2, 700), (2, 700)))
    made = []
    for splits in (1, 2, 5, 11):
        with neurokern.emulate(check=False), neurokern.strict():
            options = {"cache_seqlens": torch.tensor([690]), "num_splits": splits, "enable_gqa": True}
            pair = [F.attention_with_kv_cache(q, k, v, return_lse=True, **options) for _ in range(2)]
        assert torch.equal(pair[0][0], pair[1][0])
        assert torch.equal(pair[0][1], pair[1][1])
        made.append(pair[0])
    for out, lse in made[1:]:
        close(out, made[0][0].double(), 2 * EPS[kind])
        close(lse, made[0][1].double(), 4 * torch.finfo(lse.dtype).eps)


@on_the_emulator
@pytest.mark.parametrize(
    ("queries", "options", "kernel"),
    [
        (1, {}, "attention_split_bf16_64_1"),
        (16, {"is_causal": True, "causal_align": "bottom-right"}, "attention_split_bf16_64_4"),
        (16, {"softcap": 2.0, "window": (20, 0)}, "attention_split_bf16_64_4"),
        (17, {}, "attention_mma_bf16_64"),
        (1, {"mask": torch.arange(200) % 3 > 0}, "attention_mma_bf16_64"),
        (1, {"dropout_p": 0.5, "seed": torch.tensor([1, 0])}, "attention_mma_bf16_64"),
        (1, {"bias": torch.zeros(200).bfloat16()}, "attention_mma_bf16_64"),
    ],
)  # fmt: skip
def test_few_queries_without_a_cache(queries: int, options: dict[str, Any], kernel: str) -> None:
    """They take the same kernels where their rules allow it, and have gradients."""
    q, k, v = (
        torch.randn(2, heads, n, 64).bfloat16().requires_grad_() for heads, n in ((4, queries), (2, 200), (2, 200))
    )
    g = torch.randn(2, 4, queries, 64).bfloat16()

    def run(*args: Tensor) -> list[Tensor]:
        more = {n: t.to(args[0].dtype) if n == "bias" else t for n, t in options.items()}
        with torch.enable_grad():
            out = F.attention(*args, enable_gqa=True, **more)
            return [out, *torch.autograd.grad(out, args, g.to(out.dtype))]

    want = run(*(t.detach().double().requires_grad_() for t in (q, k, v)))
    with neurokern.emulate(), neurokern.strict(), neurokern.trace() as launches:
        got = run(q, k, v)
    assert launches[0].kernel == kernel
    for x, y in zip(got, want, strict=True):
        close(x, y, 4 * EPS[torch.bfloat16])


# ---- the plan, without a device ----

_spec = importlib.util.spec_from_file_location("plans", Path(__file__).parent / "plans" / "library.py")
host = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(host)

A100 = (108, 163 * 1024, 164 * 1024)
RTX = (84, 99 * 1024, 100 * 1024)
H200 = (132, 227 * 1024, 228 * 1024)
F32, F64, F16, BF16 = range(4)


def plan(dtype: int, entries: int, rows: int, keys: int, size: int, gpu: tuple[int, int, int], asked: int = 0):
    to = (ctypes.c_int64 * 6)()
    numbers = [ctypes.c_int64(n) for n in (entries, rows, keys, size, size, asked)]
    host.load_attention().split_plan(dtype, *numbers, *gpu, to)
    return dict(zip(("rows", "keys", "warps", "shared", "row tiles", "parts"), to, strict=True))


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@needs_compiler
@pytest.mark.parametrize("gpu", [A100, RTX, H200], ids=["A100", "RTX", "H200"])
def test_plans_fit_the_machine_and_cover_the_problem(gpu: tuple[int, int, int]) -> None:
    for dtype in (F32, F64, F16, BF16):
        for rows in (1, 16, 17, 64, 100, 128, 1000):
            for keys in (0, 1, 63, 64, 1000, 100_000, 1 << 29):
                for size in (1, 64, 65, 128, 200, 256, 300):
                    for asked in (0, 1, 7, 10_000):
                        p = plan(dtype, 8, rows, keys, size, gpu, asked)
                        assert p["shared"] + 3072 <= gpu[1]
                        assert p["row tiles"] * (p["rows"] or 32) >= rows
                        assert (p["row tiles"] - 1) * (p["rows"] or 32) < rows
                        assert 1 <= p["parts"] <= min(128, max(1, -(-keys // (p["keys"] or 32))))
                        if asked == 1:
                            assert p["parts"] == 1
                        assert (p["rows"] == 0) == (dtype in (F32, F64) or size > 256)


@needs_compiler
@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("keys", [8192, 65536])
def test_few_sequences_fill_the_machine(batch: int, keys: int) -> None:
    """Eight heads of keys: three quarters of the time that blocks take, every multiprocessor has two."""
    p = plan(BF16, 8 * batch, 8, keys, 128, H200)
    blocks = 8 * batch * p["parts"]
    waves = -(-blocks // (2 * H200[0]))
    assert blocks >= 0.75 * waves * 2 * H200[0]
    assert keys / p["parts"] >= 4 * 64  # what a part leaves is little beside what it reads


@on_the_emulator
def test_what_kernels_keep_beside_their_tiles_is_what_the_plan_counts() -> None:
    table = json.loads((Path(_C.cuda_info()["kernel_dir"]) / "resources.json").read_text())
    rows = [row for name in ("bf16", "f16") for row in table[f"attention_mma_split_{name}"]]
    assert len(rows) >= 2 * 7
    assert max(row["shared"] for row in rows) <= 3072


@needs_compiler
def test_many_blocks_and_few_keys_are_not_divided() -> None:
    assert plan(BF16, 2000, 8, 4096, 128, H200)["parts"] == 1
    assert plan(BF16, 8, 8, 64, 128, H200)["parts"] == 1
