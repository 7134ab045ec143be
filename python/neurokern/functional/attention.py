"""Attention with the signature of torch.nn.functional, and with what other implementations add to it.

Float32, float64, float16 or bfloat16 with any strides; memory is linear in the lengths. A query that sees no key gives
zeros, and zero gradients; a key that no query sees counts for nothing, whatever its value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.parameters import as_float
from ..ops.attention import Rules, drawn_seed
from ..ops.attention import attention as _attention
from ..ops.attention import attention_with_lse as _attention_with_lse
from ..ops.attention import scaled_dot_product_attention as _sdpa
from ..ops.attention_cache import Rules as CacheRules
from ..ops.attention_cache import append_to_cache, attention_of_cache, check_all, refuse_gradient

__all__ = ["attention", "attention_with_kv_cache", "scaled_dot_product_attention"]

_EVERYTHING = tuple(Rules())
_CAUSAL = tuple(Rules(right=0))
_EVERYTHING_GROUPED = tuple(Rules(groups=1))
_CAUSAL_GROUPED = tuple(Rules(right=0, groups=1))


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(scale * query key^T + attn_mask) value. Source: Vaswani et al. 2017, computed as Dao et al. 2022 do.

    Args:
        query: [..., heads, queries, size].
        key, value: [..., heads, keys, size], and another size for value.
        attn_mask: broadcast to [..., heads, queries, keys]: bool, True where a key is visible, or numbers of query's
            dtype or float32 that are added.
        dropout_p: probability with which a weight is dropped; a function that is given it always drops.
        is_causal: query i sees keys 0 .. i; with attn_mask, those of them that it lets through.
        scale: None: 1 / sqrt(size).
        enable_gqa: heads of key and value may be fewer; each serves heads / their number of query's.

    Raises:
        RuntimeError: sizes, dtypes or devices do not match; dropout_p is no probability.
    """
    if enable_gqa:
        rules = _CAUSAL_GROUPED if is_causal else _EVERYTHING_GROUPED
    else:
        rules = _CAUSAL if is_causal else _EVERYTHING
    mask = bias = None
    if attn_mask is not None:
        if getattr(attn_mask, "dtype", None) == torch.bool:
            mask = attn_mask
        else:
            bias = attn_mask
    seed = None if dropout_p == 0 else drawn_seed(query, dropout_p)
    return _sdpa(query, key, value, mask, bias, None, None, None, None, seed, scale, 0.0, dropout_p, rules)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    is_causal: bool = False,
    causal_align: str = "top-left",
    window: tuple[int, int] | None = None,
    chunk: int | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    softcap: float = 0.0,
    sink: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
    enable_gqa: bool = False,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    return_lse: bool = False,
    seed: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention with everything: score = softcap(scale * query key^T) - slope * distance + bias, over the visible keys.

    Args:
        query: [..., heads, queries, size], or of packed sequences [heads, all queries, size].
        key, value: [..., heads, keys, size], and another size for value.
        is_causal: a query sees no key behind its own place.
        causal_align: where query i is: "top-left" at key i, "bottom-right" at key i + keys - queries.
        window: (left, right): keys before and after a query's place that it sees besides; -1: all. As FlashAttention
            counts: (0, 0) is the place alone.
        chunk: keys in a chunk; a query sees only those of its own.
        mask: bool, broadcast to [..., heads, queries, keys], True where a key is visible.
        bias: added to the scores, broadcast likewise; has a gradient.
        alibi_slopes: [heads] or [..., heads]: slope * |place - key| is subtracted. Source: Press et al. 2022.
        softcap: c * tanh(score / c), c = 0: none. Source: Gemma 2.
        sink: [heads], of query's dtype: a logit that takes part in the softmax's sum alone; has a gradient.
        dropout_p: probability with which a weight is dropped.
        scale: None: 1 / sqrt(size).
        enable_gqa: heads of key and value may be fewer; each serves heads / their number of query's.
        cu_seqlens_q, cu_seqlens_k: [sequences + 1], int32 or int64: where the sequences end, beginning with 0. Rows
            behind the last one are zeros.
        max_seqlen_q, max_seqlen_k: lengths of the longest sequences, if known: a GPU starts fewer blocks then, and
            leaves out the rows of a longer one.
        return_lse: also return the log of the softmax's sum, [..., heads, queries], in float32 at least; it has a
            gradient.
        seed: [2] of int64, where dropout's random numbers begin; None: drawn from torch's generator.

    Raises:
        RuntimeError: sizes, dtypes or devices do not match; dropout_p is no probability.
        ValueError: causal_align is no name, window or chunk no lengths, or sequences' ends fall.
    """
    if causal_align not in ("top-left", "bottom-right"):
        raise ValueError(
            f"neurokern.attention: argument causal_align is {causal_align!r}, expected 'top-left' or 'bottom-right'"
        )
    left, right = _lengths("window", window, 2, -1) if window is not None else (-1, -1)
    if is_causal:
        right = 0
    (size,) = _lengths("chunk", (chunk,), 1, 1) if chunk is not None else (0,)
    for name, most in (("max_seqlen_q", max_seqlen_q), ("max_seqlen_k", max_seqlen_k)):
        if most is not None:
            _lengths(name, (most,), 1, 0)
    rules = Rules(
        left, right, size, causal_align == "bottom-right", enable_gqa, max_seqlen_q or 0, max_seqlen_k or 0
    )  # fmt: skip
    dropout_p, softcap = as_float("attention", "dropout_p", dropout_p), as_float("attention", "softcap", softcap)
    if seed is None:
        seed = drawn_seed(query, dropout_p)
    if isinstance(alibi_slopes, Tensor) and isinstance(query, Tensor):
        alibi_slopes = alibi_slopes.to(torch.float64 if query.dtype == torch.float64 else torch.float32)
    call = _attention_with_lse if return_lse else _attention
    return call(
        query, key, value, mask, bias, alibi_slopes, sink, cu_seqlens_q, cu_seqlens_k, seed, scale, softcap, dropout_p,
        [int(r) for r in rules],
    )  # fmt: skip


def attention_with_kv_cache(
    query: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    *,
    cache_seqlens: Tensor,
    block_table: Tensor | None = None,
    is_causal: bool = True,
    window: tuple[int, int] | None = None,
    alibi_slopes: Tensor | None = None,
    softcap: float = 0.0,
    sink: Tensor | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    num_splits: int = 0,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of new tokens to the keys and values of a cache, in which ``key`` and ``value`` are first written.

    The last query is at the last key, as in FlashAttention's flash_attn_with_kvcache. Rows of the cache beyond a
    sequence's length count for nothing, whatever they hold; a sequence of no keys gives zeros, and an lse of -infinity.
    There is no gradient. Source of pages: Kwon et al. 2023.

    Args:
        query: [batch, heads, new tokens, size].
        k_cache, v_cache: [batch, heads of keys, capacity, size] with any strides, and another size for values; or with
            block_table pages, [pages, heads of keys, rows of a page, size].
        key, value: [batch, heads of keys, new keys, size], written in place into the caches, behind each sequence's
            rows. None: the cache is read as it is.
        cache_seqlens: [batch], int32 or int64: rows of each sequence before key and value are written. Not changed.
        block_table: [batch, pages of a sequence], int32 or int64: the page where its rows 0 .. of a page are, then the
            next. Only as many are looked at as the sequence has rows for.
        is_causal: a query sees no key behind its own place.
        window: (left, right): keys before and after a query's place that it sees besides; -1: all.
        alibi_slopes: [heads] or [batch, heads]: slope * |place - key| is subtracted. Source: Press et al. 2022.
        softcap: c * tanh(score / c), c = 0: none.
        sink: [heads], of query's dtype: a logit that takes part in the softmax's sum alone.
        scale: None: 1 / sqrt(size).
        enable_gqa: heads of the caches may be fewer; each serves heads / their number of query's.
        num_splits: parts of the keys that are computed apart and put together; 0: as many as fill the machine.
        return_lse: also return the log of the softmax's sum, [batch, heads, new tokens], in float32 at least.

    Raises:
        RuntimeError: sizes, dtypes or devices do not match; a gradient would be recorded.
        ValueError: a cache has no room for the new rows, a length is negative, a page is none of the cache's; window or
            num_splits are no lengths. On a GPU the numbers of cache_seqlens and block_table are not looked at.
    """
    left, right = _lengths("window", window, 2, -1, _CACHED) if window is not None else (-1, -1)
    if is_causal:
        right = 0
    (splits,) = _lengths("num_splits", (num_splits,), 1, 0, _CACHED)
    softcap = as_float(_CACHED, "softcap", softcap)
    if isinstance(alibi_slopes, Tensor) and isinstance(query, Tensor):
        alibi_slopes = alibi_slopes.to(torch.float64 if query.dtype == torch.float64 else torch.float32)
    if (key is None) != (value is None):
        raise RuntimeError(f"neurokern.{_CACHED}: of key and value one is given without the other")
    appended = 0
    more: tuple[Any, ...] = (cache_seqlens, block_table, alibi_slopes, sink)
    if key is not None and value is not None:
        if torch.is_grad_enabled():
            refuse_gradient(query=query, key=key, value=value, k_cache=k_cache, v_cache=v_cache, sink=sink)
        rules = [left, right, int(enable_gqa), 0, splits]
        check_all(query, k_cache, v_cache, *more, key, value, scale, softcap, rules)
        append_to_cache(k_cache, key, cache_seqlens, block_table)
        append_to_cache(v_cache, value, cache_seqlens, block_table)
        appended = key.size(2)
    rules = list(CacheRules(left, right, int(enable_gqa), appended, splits))
    made = attention_of_cache(query, k_cache, v_cache, *more, scale, softcap, rules)
    return made if return_lse else made[0]


_CACHED = "attention_with_kv_cache"


def _lengths(name: str, given: Any, count: int, least: int, op: str = "attention") -> tuple[int, ...]:
    fits = isinstance(given, tuple | list) and len(given) == count
    if not fits or not all(isinstance(n, int) and n >= least for n in given):
        shown = given[0] if count == 1 and fits else given
        wanted = "two lengths, -1 for no limit" if count == 2 else f"a length of at least {least}"
        raise ValueError(f"neurokern.{op}: argument {name} is {shown!r}, expected {wanted}")
    return tuple(given)
