"""attention_with_kv_cache beyond its spec: what is written and what is not, generation, memory, torch.compile."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def int32(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def new(batch: int, heads: int, rows: int, size: int, value_size: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, heads, rows, size), torch.randn(batch, heads, rows, value_size or size)


def test_rows_are_written_behind_those_that_are_there_and_nowhere_else() -> None:
    k_cache, v_cache = new(2, 3, 10, 8, 4)
    before = k_cache.clone(), v_cache.clone()
    key, value = new(2, 3, 2, 8, 4)
    lengths = int32(0, 7)
    F.attention_with_kv_cache(torch.randn(2, 3, 2, 8), k_cache, v_cache, key, value, cache_seqlens=lengths)
    for cache, was, rows in ((k_cache, before[0], key), (v_cache, before[1], value)):
        was[0, :, 0:2], was[1, :, 7:9] = rows[0], rows[1]
        assert torch.equal(cache, was)
    assert lengths.tolist() == [0, 7]


@pytest.mark.parametrize("page", [1, 3, 4])
def test_rows_are_written_through_the_table(page: int) -> None:
    key, value = new(2, 2, 5, 8)
    k_cache, v_cache = torch.zeros(16, page, 2, 8).transpose(1, 2), torch.zeros(16, 2, page, 8)
    table = torch.randperm(16).view(2, 8)
    F.attention_with_kv_cache(
        torch.randn(2, 2, 5, 8), k_cache, v_cache, key, value, cache_seqlens=int32(2, 0), block_table=table
    )
    for cache, rows in ((k_cache, key), (v_cache, value)):
        want = torch.zeros(16, 2, page, 8)
        for b, first in ((0, 2), (1, 0)):
            for i in range(5):
                want[table[b, (first + i) // page], :, (first + i) % page] = rows[b, :, i]
        assert torch.equal(cache, want)


@pytest.mark.parametrize("page", [0, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_generation_step_by_step_is_one_causal_pass(page: int, dtype: torch.dtype) -> None:
    """A prompt, then token by token; two sequences of other lengths."""
    total, prompt, batch = 21, 6, 2
    q, k, v = (torch.randn(batch, heads, total, 16).to(dtype) for heads in (4, 2, 2))
    want = F.attention(q, k, v, is_causal=True, enable_gqa=True)
    table = None
    k_cache, v_cache = (torch.full((batch, 2, total, 16), math.nan, dtype=dtype) for _ in range(2))
    if page:
        each = -(-total // page)
        table = torch.randperm(batch * each, dtype=torch.int32).view(batch, each)
        k_cache, v_cache = (torch.full((batch * each, 2, page, 16), math.nan, dtype=dtype) for _ in range(2))
    lengths, parts = int32(0, 0), []
    for begin, end in [(0, prompt), *((i, i + 1) for i in range(prompt, total))]:
        rows = slice(begin, end)
        parts.append(
            F.attention_with_kv_cache(
                q[:, :, rows], k_cache, v_cache, k[:, :, rows], v[:, :, rows], cache_seqlens=lengths, block_table=table,
                enable_gqa=True,
            )
        )  # fmt: skip
        lengths = lengths + (end - begin)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(torch.cat(parts, 2), want, rtol=4 * unit, atol=16 * unit)


def test_a_sequence_of_none_gives_zeros() -> None:
    k_cache, v_cache = new(2, 1, 6, 8)
    k_cache[0], v_cache[0] = math.nan, math.nan
    q = torch.randn(2, 1, 2, 8)
    out, lse = F.attention_with_kv_cache(q, k_cache, v_cache, cache_seqlens=int32(0, 6), return_lse=True)
    assert (out[0] == 0).all()
    assert (lse[0] == -math.inf).all()
    assert out[1].isfinite().all()
    assert lse[1].isfinite().all()


BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"value": torch.randn(2, 2, 1, 9)}, RuntimeError),
    ({"value": [1.0]}, TypeError),
    ({"query": torch.randn(2, 2, 1, 7)}, RuntimeError),
    ({"sink": torch.randn(5)}, RuntimeError),
    ({"alibi_slopes": torch.randn(5)}, RuntimeError),
    ({"cache_seqlens": int32(3, 20)}, ValueError),
    ({"cache_seqlens": int32(3, -1)}, ValueError),
    ({"query": torch.randn(2, 2, 1, 8, requires_grad=True)}, RuntimeError),
    ({"window": (1, 2, 3)}, ValueError),
    ({"softcap": "high"}, TypeError),
    ({"scale": "high"}, TypeError),
]


@pytest.mark.parametrize("changed, raises", BAD, ids=[str(next(iter(b[0]))) for b in BAD])
def test_nothing_is_written_before_an_error(changed: dict[str, Any], raises: type[Exception]) -> None:
    k_cache, v_cache = new(2, 2, 20, 8)
    before = k_cache.clone(), v_cache.clone()
    key, value = new(2, 2, 1, 8)
    given = {"query": torch.randn(2, 2, 1, 8), "key": key, "value": value, "cache_seqlens": int32(3, 4), **changed}
    with torch.enable_grad(), pytest.raises(raises, match=r"neurokern\.attention_with_kv_cache"):
        F.attention_with_kv_cache(k_cache=k_cache, v_cache=v_cache, **given)
    assert torch.equal(k_cache, before[0])
    assert torch.equal(v_cache, before[1])


def test_a_gradient_is_refused() -> None:
    caches, rows = new(1, 1, 4, 8), new(1, 1, 1, 8)
    q = torch.randn(1, 1, 1, 8, requires_grad=True)
    with torch.enable_grad():
        for args in ((q, *caches), (q, *caches, *rows), (q.detach(), *caches, rows[0].requires_grad_(), rows[1])):
            with pytest.raises(RuntimeError, match=r"requires grad, expected torch\.no_grad"):
                F.attention_with_kv_cache(*args, cache_seqlens=int32(2))


def test_a_cache_that_is_repeated_is_refused() -> None:
    k_cache, v_cache = new(1, 1, 4, 8)
    rows = new(1, 2, 1, 8)
    q = torch.randn(1, 2, 1, 8)
    with pytest.raises(RuntimeError, match=r"k_cache of shape .* more than one element at one address"):
        F.attention_with_kv_cache(
            q, k_cache.expand(1, 2, 4, 8), v_cache.expand(1, 2, 4, 8), *rows, cache_seqlens=int32(2)
        )


def test_a_write_is_seen_by_autograd() -> None:
    caches, rows = new(1, 1, 4, 8), new(1, 1, 1, 8)
    versions = [t._version for t in caches]
    F.attention_with_kv_cache(torch.randn(1, 1, 1, 8), *caches, *rows, cache_seqlens=int32(2))
    assert [t._version for t in caches] == [n + 1 for n in versions]


def test_threads_and_parts_change_little_and_the_same_call_nothing() -> None:
    k_cache, v_cache = new(1, 2, 3000, 64)
    q = torch.randn(1, 4, 1, 64)
    made = []
    for splits in (0, 1, 2, 5, 4000):
        pair = [
            F.attention_with_kv_cache(
                q, k_cache, v_cache, cache_seqlens=int32(2999), num_splits=splits, enable_gqa=True, return_lse=True
            )
            for _ in range(2)
        ]
        assert torch.equal(pair[0][0], pair[1][0])
        assert torch.equal(pair[0][1], pair[1][1])
        made.append(pair[0])
    for out, lse in made[1:]:
        torch.testing.assert_close(out, made[0][0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(lse, made[0][1], rtol=1e-6, atol=1e-6)


def step(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, key: Tensor, value: Tensor, lengths: Tensor, table: Any
) -> Tensor:
    return F.attention_with_kv_cache(
        q, k_cache, v_cache, key, value, cache_seqlens=lengths, block_table=table, window=(9, -1), softcap=5.0
    )


def arguments(paged: bool) -> tuple[Any, ...]:
    table = torch.randperm(8).view(2, 4) if paged else None
    caches = new(8, 2, 4, 8) if paged else new(2, 2, 16, 8)
    return torch.randn(2, 2, 2, 8), *caches, *new(2, 2, 2, 8), int32(3, 14), table


def copies(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(t.clone() if isinstance(t, Tensor) else t for t in args)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")
@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled(backend: str, paged: bool) -> None:
    args = arguments(paged)
    eager, compiled = copies(args), copies(args)
    want = step(*eager)
    got = torch.compile(step, backend=backend, fullgraph=True)(*compiled)
    assert torch.equal(got, want)
    assert torch.equal(compiled[1], eager[1])
    assert torch.equal(compiled[2], eager[2])


@pytest.mark.parametrize("paged", [False, True])
def test_exported(paged: bool) -> None:
    class Step(torch.nn.Module):
        def forward(self, *args: Any) -> Tensor:
            return step(*args)

    args = arguments(paged)
    program = torch.export.export(Step(), copies(args))
    eager, exported, again = copies(args), copies(args), copies(args)
    want = step(*eager)
    assert torch.equal(program.module()(*exported), want)
    assert torch.equal(exported[1], eager[1])
    torch.testing.assert_close(program.run_decompositions().module()(*again), want)
    assert torch.equal(again[2], eager[2])


def test_what_is_traced_is_refused_as_it_is_traced() -> None:
    args = list(arguments(False))
    args[4] = torch.randn(2, 2, 2, 9)
    with pytest.raises(Exception, match="attention_with_kv_cache"):
        torch.compile(step, backend="aot_eager", fullgraph=True)(*args)


def test_nothing_falls_back() -> None:
    with neurokern.strict(), neurokern.trace() as launches:
        step(*arguments(True))
    assert [launch.op for launch in launches] == ["append_to_cache", "append_to_cache", "attention"]


@pytest.mark.parametrize("page", [0, 16])
def test_a_prompt_goes_by_tiles(page: int) -> None:
    """Many queries: keys in pages are gathered for one head at a time."""
    total = 300
    q, k, v = torch.randn(2, 4, 40, 32), *new(2, 2, total, 32)
    lengths = [total, 171]
    k[1, :, 171:], v[1, :, 171:] = math.nan, math.nan
    table, caches = None, (k, v)
    if page:
        table = torch.randperm(2 * 19).view(2, 19)
        caches = tuple(torch.full((2 * 19, 2, page, 32), math.nan) for _ in range(2))
        for cache, t in zip(caches, (k, v), strict=True):
            padded = torch.nn.functional.pad(t, (0, 0, 0, 19 * page - total))
            cache[table] = padded.unflatten(2, (19, page)).transpose(1, 2)
    with neurokern.trace() as launches:
        got = F.attention_with_kv_cache(
            q, *caches, cache_seqlens=torch.tensor(lengths), block_table=table, enable_gqa=True
        )
    assert "heads alone" in launches[-1].plan
    for b, n in enumerate(lengths):
        want = F.attention(q[b], k[b, :, :n], v[b, :, :n], is_causal=True, causal_align="bottom-right", enable_gqa=True)
        torch.testing.assert_close(got[b], want, rtol=1e-5, atol=1e-5)


def test_parts_are_those_that_were_asked_for() -> None:
    caches = new(1, 1, 700, 16)
    for splits, said in ((1, "1 parts"), (3, "3 parts"), (10**6, "128 parts")):
        with neurokern.trace() as launches:
            F.attention_with_kv_cache(torch.randn(1, 1, 1, 16), *caches, cache_seqlens=int32(699), num_splits=splits)
        assert said in launches[-1].plan


MEMORY = """
import resource, torch, neurokern.functional as F
torch.set_grad_enabled(False)
pages, table = torch.zeros(1024, 8, 64, 32), torch.arange(1024).view(8, 128)
q, row, lengths = torch.randn(8, 8, {queries}, 32), torch.randn(8, 8, {queries}, 32), torch.full((8,), {length})
run = lambda n: F.attention_with_kv_cache(
    q[:n], pages, pages, row[:n], row[:n], cache_seqlens=lengths[:n], block_table=table[:n]
)
run(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("queries", [1, 16])
def test_nothing_of_the_size_of_the_cache_is_allocated(queries: int) -> None:
    """The cache has 64 MiB."""
    script = MEMORY.format(queries=queries, length=8192 - queries)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 << 20
