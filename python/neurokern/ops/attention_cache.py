"""Attention to a cache of keys and values as ops: rows are written to it in place, and attended to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling, is_exporting

from .. import _C
from ..backends.fall_back import why_unknown
from ..core.op import op
from ..core.tensors import PLAIN, recording
from .attention import Maybe, Shape, _fake, _one_by_torch
from .attention import Rules as _Rules

TITLE = "attention_with_kv_cache"


class Rules(NamedTuple):
    """The op's list of integers."""

    left: int = -1  # keys before a query's own place; -1: all
    right: int = -1
    groups: int = 0  # heads of queries may share those of keys
    appended: int = 0  # keys of each sequence behind those that cache_seqlens counts
    splits: int = 0  # parts of the keys that are computed apart; 0: the plan chooses


# ---- the definition, made of torch's functions ----


def append_by_torch(cache: Tensor, new: Tensor, lengths: Tensor, table: Maybe) -> Tensor:
    """Write ``new`` into the cache behind the rows that are there; returns the cache."""
    place = lengths.long()[:, None] + torch.arange(new.size(2), device=new.device)  # [batch, rows]
    if table is None:
        entry = torch.arange(new.size(0), device=new.device)[:, None]
    else:
        entry = table.long().gather(1, place.div(cache.size(2), rounding_mode="floor"))
        place = place.remainder(cache.size(2))
    return cache.transpose(1, 2).index_put_((entry, place), new.transpose(1, 2)).transpose(1, 2)


def _rows(cache: Tensor, table: Maybe) -> Tensor:
    """[batch, heads, capacity, size] of a cache, of pages or not."""
    if table is None:
        return cache
    pages = table.long().clamp(0, max(cache.size(0) - 1, 0))  # what is behind a sequence's last page may be anything
    return cache[pages].transpose(1, 2).flatten(2, 3)


def attention_of_cache_by_torch(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor, table: Maybe, slopes: Maybe, sink: Maybe,
    scale: float | None, softcap: float, rules: Sequence[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output and log of the softmax's sum, by the definition: all rows of the cache, and a mask."""
    left, right, _, appended, _ = Rules(*rules)
    k, v = _rows(k_cache, table), _rows(v_cache, table)
    keys = (lengths.long() + appended)[:, None, None, None]
    key = torch.arange(k.size(2), device=q.device)
    there = (key < keys).mT  # [batch, 1, keys, 1]
    zero = torch.zeros((), dtype=k.dtype, device=k.device)
    k, v = torch.where(there, k, zero), torch.where(there, v, zero)
    place = torch.arange(q.size(2), device=q.device)[:, None] + keys - q.size(2)  # [batch, 1, queries, 1]
    seen = key < keys
    if left >= 0:
        seen = seen & (key >= place - left)
    if right >= 0:
        seen = seen & (key <= place + right)
    seen = seen.expand(q.size(0), 1, q.size(2), k.size(2))
    bias = None
    if slopes is not None:
        bias = -slopes.expand(q.shape[:2])[..., None, None] * (place - key).abs().to(slopes.dtype)
    scale = max(q.size(-1), 1) ** -0.5 if scale is None else scale
    out, lse = _one_by_torch(q, k, v, seen, bias, None, sink, None, scale, softcap, _Rules())
    return out.to(q.dtype), lse


# ---- the ops ----


def refuse_gradient(**tensors: Any) -> None:
    """Raise where autograd would record: writing to a cache in place has no gradient."""
    for name, t in tensors.items():
        if recording(t):
            raise RuntimeError(
                f"neurokern.{TITLE}: argument {name} requires grad, expected torch.no_grad() around the call: "
                "attention to a cache has no gradient"
            )


def _prepare_append(cache: Tensor, new: Tensor, lengths: Tensor, table: Maybe) -> Any:
    refuse_gradient(cache=cache, new=new)
    if is_exporting():  # functionalized, aten has no name for what writes here
        return append_by_torch(cache, new, lengths, table)
    return cache, new, lengths, table


def _prepare(q: Tensor, k_cache: Tensor, v_cache: Tensor, *rest: Any) -> Any:
    refuse_gradient(query=q, k_cache=k_cache, v_cache=v_cache, slopes=rest[2], sink=rest[3])
    return q, k_cache, v_cache, *rest


def _flops(q: Shape, k_cache: Shape, v_cache: Shape, lengths: Shape, table: Shape | None, *rest: Any) -> int:
    """Of all keys that there is room for: lengths are numbers on a device."""
    keys = k_cache[-2] * (1 if table is None else table[-1])
    return 2 * math.prod(q[:-1]) * keys * (q[-1] + v_cache[-1])


def _dims(
    out: Maybe, q: Shape, k_cache: Shape, v_cache: Shape, lengths: Shape, table: Shape | None, slopes: Shape | None,
    sink: Shape | None, *rest: Any,
) -> tuple[list[Any], list[Any]]:  # fmt: skip
    """Sequences may be cut, but for pages, which are those of all; heads where each has its own keys."""
    batch, head = "batch", "head" if q[1] == k_cache[1] else None
    rows = [None if table is not None else batch, head, None, None]
    of_slopes = [batch if slopes is not None and slopes[0] == q[0] else None, head]
    given = [[batch, head, None, None], rows, rows, [batch], [batch, None], of_slopes, [head]]
    if slopes is not None and len(slopes) == 1:
        given[5] = [head]
    return given, [[batch, head, None, None], [batch, head, None]]


def _append_fake(cache: Tensor, new: Tensor, *rest: Any) -> None:
    if cache.dim() != 4 or new.dim() != 4 or cache.size(1) != new.size(1) or cache.size(3) != new.size(3):
        raise RuntimeError(
            f"neurokern.{TITLE}: argument new has shape {list(new.shape)}, expected the heads and size of argument "
            f"cache of shape {list(cache.shape)}"
        )


append_to_cache = op(
    "append_to_cache(Tensor(a!) cache, Tensor new, Tensor cache_seqlens, Tensor? block_table) -> ()",
    fake=_append_fake,
    torch=append_by_torch,
    title=TITLE,
    integers="cache_seqlens block_table",
    prepare=_prepare_append,
)
attention_of_cache = op(
    "attention_of_cache(Tensor query, Tensor k_cache, Tensor v_cache, Tensor cache_seqlens, Tensor? block_table,"
    " Tensor? slopes, Tensor? sink, float? scale, float softcap, int[] rules) -> (Tensor output, Tensor lse)",
    fake=_fake,
    torch=attention_of_cache_by_torch,
    title=TITLE,
    integers="cache_seqlens block_table",
    prepare=_prepare,
    flops=_flops,
    dims=_dims,
)


def check_all(*args: Any) -> None:
    """Raise what the two ops would, before the first of them writes; ``args``: of the kernel entry.

    What is traced is checked as it is traced, and what has no kernel is torch's affair.
    """
    if is_dynamo_compiling() or torch._C._are_functorch_transforms_active():
        return
    if any(type(t) not in PLAIN and hasattr(t, "__torch_function__") for t in args[:9]):
        return
    try:
        _C.attention_with_kv_cache(*args)
    except RuntimeError:
        if why_unknown(*args[:3]) is None:
            raise
