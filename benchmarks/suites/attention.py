"""Attention: a vision transformer, GPT-2, shared heads, odd lengths, decoding with a cache, masks written out."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern.bench.cases import Case
from torch import Tensor

T = torch.nn.functional

# batch, heads, heads of keys, queries, keys, size, causal
SHAPES = {
    "ViT 4 x 12 x 197 x 64": (4, 12, 12, 197, 197, 64, False),
    "GPT 1 x 12 x 1024 x 64 causal": (1, 12, 12, 1024, 1024, 64, True),
    "1 x 8 x 1024 x 64": (1, 8, 8, 1024, 1024, 64, False),
    "1 x 8 x 2048 x 128 causal": (1, 8, 8, 2048, 2048, 128, True),
    "32 x 8 x 128 x 64 causal": (32, 8, 8, 128, 128, 64, True),
    "GQA 1 x 32/8 x 1024 x 128 causal": (1, 32, 8, 1024, 1024, 128, True),
    "8 x 4 x 65 x 32": (8, 4, 4, 65, 65, 32, False),
    "1 x 2 x 4096 x 64 causal": (1, 2, 2, 4096, 4096, 64, True),
}
DECODE = {
    "1 token, 512 keys, 12 heads of 64": (1, 12, 12, 1, 512, 64, False),
    "1 token, 8192 keys, 32/8 heads of 128": (1, 32, 8, 1, 8192, 128, False),
    "4 tokens, 2048 keys, 32/8 heads of 128": (1, 32, 8, 4, 2048, 128, False),
    "1 token, 1024 keys, batch 8": (8, 12, 12, 1, 1024, 64, False),
}


def _call(function: Any, causal: bool, shared: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return function(q, k, v, is_causal=causal, enable_gqa=shared)


def _case(label: str, shape: tuple, dtype: str, grad: bool) -> Case:
    batch, heads, kv_heads, queries, keys, size, causal = shape
    shared = heads != kv_heads
    ours, theirs = (partial(_call, f.scaled_dot_product_attention, causal, shared) for f in (F, T))
    shapes = ((batch, heads, queries, size), *[(batch, kv_heads, keys, size)] * 2)
    flops = 4.0 * batch * heads * queries * keys * size * (0.5 if causal else 1)
    return Case("scaled_dot_product_attention", label, dtype, ours, theirs, shapes, (1.0,) * 3, flops, grad=grad,
                reduces=True, together=3)  # fmt: skip


def attention(dtype: str, grad: bool, device: str, quick: bool) -> list[Case]:
    """Lengths 65 to 4,096, sizes 32 to 128, causal and not."""
    return [_case(label, shape, dtype, grad) for label, shape in list(SHAPES.items())[:: 3 if quick else 1]]


def decode(device: str, quick: bool) -> list[Case]:
    """A few queries of many keys."""
    shapes = list(DECODE.items())[:: 2 if quick else 1]
    return [_case(label, shape, dtype, False) for dtype in ("f32", "bf16") for label, shape in shapes]


@cache
def _window(length: int, left: int, device: str) -> Tensor:
    place = torch.arange(length, device=device)
    far = place[:, None] - place
    return (far >= 0) & (far <= left)


def _windowed(left: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.attention(q, k, v, is_causal=True, window=(left, -1))


def _masked(left: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return T.scaled_dot_product_attention(q, k, v, _window(q.size(-2), left, str(q.device)))


def _biased(function: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return function(q, k, v, bias)


def masked(device: str, quick: bool) -> list[Case]:
    """A sliding window against torch with the mask written out; numbers added to the scores."""
    cases = []
    for dtype in ("f32", "bf16"):
        for length, left in ((1024, 127), (2048, 255))[: 1 if quick else 2]:
            shapes = ((1, 8, length, 64),) * 3
            work = 4.0 * 8 * length * (left + 1) * 64
            pair = partial(_windowed, left), partial(_masked, left)
            label = f"window {left + 1}, 1 x 8 x {length} x 64"
            cases.append(Case("attention", label, dtype, *pair, shapes, (1.0,) * 3, work, reduces=True, together=3))
        shapes = (*[(1, 8, 512, 64)] * 3, (8, 512, 512))
        pair = tuple(partial(_biased, f.scaled_dot_product_attention) for f in (F, T))
        label, work = "bias 8 x 512 x 512, 1 x 8 x 512 x 64", 4.0 * 8 * 512 * 512 * 64
        cases.append(
            Case(
                "scaled_dot_product_attention", label, dtype, *pair, shapes, (1.0,) * 4, work, reduces=True, together=3
            )
        )
    return cases


# batch, heads, heads of keys, queries, keys, size, rows of a page (0: none, and a row is appended)
CACHED = {
    "1 token, 512 keys, 12 heads of 64, pages of 16": (1, 12, 12, 1, 512, 64, 16),
    "1 token, 8192 keys, 32/8 heads of 128, pages of 16": (1, 32, 8, 1, 8192, 128, 16),
    "4 tokens, 2048 keys, 32/8 heads of 128, pages of 64": (1, 32, 8, 4, 2048, 128, 64),
    "1 token, 1024 keys, batch 8, pages of 1": (8, 12, 12, 1, 1024, 64, 1),
    "1 token appended to 1023 of 2048 keys, 12 heads of 64": (1, 12, 12, 1, 1023, 64, 0),
    "1 token appended to 1023 of 2048 keys, batch 8": (8, 12, 12, 1, 1023, 64, 0),
}


@cache
def _table(batch: int, pages: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(pages)
    return torch.randperm(batch * pages, generator=generator).view(batch, pages).to(device)


@cache
def _lengths(batch: int, keys: int, device: str) -> Tensor:
    return torch.full((batch,), keys, dtype=torch.int32, device=device)


def _paged(keys: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    table = _table(q.size(0), k.size(0) // q.size(0), str(q.device))
    lengths = _lengths(q.size(0), keys, str(q.device))
    return F.attention_with_kv_cache(q, k, v, cache_seqlens=lengths, block_table=table, enable_gqa=True)


def _paged_by_torch(keys: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    table = _table(q.size(0), k.size(0) // q.size(0), str(q.device))
    k, v = (t.index_select(0, table.flatten()).unflatten(0, table.shape).transpose(1, 2).flatten(2, 3) for t in (k, v))
    seen = _last(q.size(2), keys, str(q.device)) if q.size(2) > 1 else None
    return T.scaled_dot_product_attention(q, k, v, seen, enable_gqa=q.size(1) != k.size(1))


@cache
def _last(queries: int, keys: int, device: str) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def _appended(keys: int, q: Tensor, k: Tensor, v: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.attention_with_kv_cache(q, k, v, key, value, cache_seqlens=_lengths(q.size(0), keys, str(q.device)))


def _appended_by_torch(keys: int, q: Tensor, k: Tensor, v: Tensor, key: Tensor, value: Tensor) -> Tensor:
    end = keys + key.size(2)
    k[:, :, keys:end], v[:, :, keys:end] = key, value
    return T.scaled_dot_product_attention(q, k[:, :, :end], v[:, :, :end])


def decode_cached(device: str, quick: bool) -> list[Case]:
    """Few queries of a cache: pages that torch gathers first, or a row that is appended."""
    cases = []
    for dtype in ("f32", "bf16"):
        for label, (batch, heads, kv_heads, queries, keys, size, page) in list(CACHED.items())[:: 3 if quick else 1]:
            query, new = (batch, heads, queries, size), (batch, kv_heads, queries, size)
            flops = 4.0 * batch * heads * queries * keys * size
            if page:
                pair, shapes = (_paged, _paged_by_torch), (query, *[(batch * keys // page, kv_heads, page, size)] * 2)
            else:
                pair, shapes = (_appended, _appended_by_torch), (query, *[(batch, kv_heads, 2048, size)] * 2, new, new)
            ours, theirs = (partial(f, keys) for f in pair)
            scales = (1.0,) * len(shapes)
            cases.append(
                Case("attention_with_kv_cache", label, dtype, ours, theirs, shapes, scales, flops, reduces=True)
            )
    return cases
