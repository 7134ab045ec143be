"""attention_with_kv_cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import neurokern.functional as F
import torch
from neurokern.ops.attention_cache import Rules, _rows, append_by_torch, attention_of_cache_by_torch
from neurokern.testing.spec import BadCall, Maker, OpSpec, Sample
from torch import Tensor


def own(cache: Tensor) -> Tensor:
    """A copy with the same strides, to write to."""
    base = torch.empty_strided(cache.shape, cache.stride(), dtype=cache.dtype, device=cache.device)
    return base.copy_(cache.detach())


def both(f: Any) -> Any:
    """Output, and log of the sum, as one tensor, which is what specs compare; of caches that nobody else has."""

    def run(query: Tensor, k_cache: Tensor, v_cache: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        k_cache, v_cache = (own(t) if isinstance(t, Tensor) else t for t in (k_cache, v_cache))
        out, lse = f(query, k_cache, v_cache, *args, return_lse=True, **kwargs)
        return torch.cat((out, lse.masked_fill(lse == -math.inf, 0).unsqueeze(-1).to(out.dtype)), -1)

    return run


def reference(
    query: Tensor, k_cache: Tensor, v_cache: Tensor, key: Tensor | None = None, value: Tensor | None = None, *,
    cache_seqlens: Tensor, block_table: Tensor | None = None, is_causal: bool = True,
    window: tuple[int, int] | None = None, alibi_slopes: Tensor | None = None, softcap: float = 0.0,
    sink: Tensor | None = None, scale: float | None = None, enable_gqa: bool = False, num_splits: int = 0,
    return_lse: bool = False,
) -> Any:  # fmt: skip
    """The definition in torch's functions."""
    appended = 0
    if key is not None and value is not None:
        append_by_torch(k_cache, key, cache_seqlens, block_table)
        append_by_torch(v_cache, value, cache_seqlens, block_table)
        appended = key.size(2)
    left, right = window or (-1, -1)
    rules = Rules(left, 0 if is_causal else right, enable_gqa, appended)
    made = attention_of_cache_by_torch(
        query, k_cache, v_cache, cache_seqlens, block_table, alibi_slopes, sink, scale, softcap, rules
    )
    return made if return_lse else made[0]


def sizes(sample: Sample, g: tuple[Tensor, ...], results: list[tuple[str, Tensor]]) -> list[Tensor] | None:
    """Sizes of the terms: an error of a score is one of its probability, and of all others by their sum."""
    q, k, v, *new = (t.detach() if isinstance(t, Tensor) else t for t in sample.args)
    given = dict(sample.kwargs)
    if not q.numel() or not k.numel():
        return None
    table = given.get("block_table")
    k, v = own(k), own(v)
    lengths = given["cache_seqlens"]
    if new and new[0] is not None:
        append_by_torch(k, new[0], lengths, table)
        append_by_torch(v, new[1], lengths, table)
        lengths = lengths + new[0].size(2)
    given["cache_seqlens"] = lengths
    k, v = (_rows(t, table).nan_to_num(0.0) for t in (k, v))
    given.pop("block_table", None)
    columns = [v.abs(), torch.ones_like(v[..., :1])]
    scale = given["scale"] if given.get("scale") is not None else q.size(-1) ** -0.5
    group = q.size(1) // k.size(1)
    score = 1 + (q.abs() @ k.repeat_interleave(group, 1).abs().mT).amax(-1, keepdim=True) * scale
    out, lse = reference(q, k, torch.cat(columns, -1), return_lse=True, **given)
    size = torch.cat((out[..., :-1] * score, score + lse.nan_to_num(0.0, 0.0, 0.0).abs().unsqueeze(-1)), -1)
    return [size] * len(results)


def numbers(make: Maker, *given: int, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.tensor(given, dtype=dtype, device=make.device)


def call(
    make: Maker, heads: int, kv_heads: int, new: int, capacity: int, size: int, lengths: tuple[int, ...],
    *, value_size: int = 0, appended: int | None = None, layout: str = "heads", wide: bool = False, **kwargs: Any,
) -> tuple[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """A call with caches that hold NaN beyond the lengths; ``layout``: "heads", or "rows" outside of them in memory."""
    batch, value_size = len(lengths), value_size or size

    def cache(columns: int) -> Tensor:
        rows = make(batch, capacity, kv_heads, columns).detach()
        t = rows.transpose(1, 2)
        for b, n in enumerate(lengths):
            t[b, :, n:] = math.nan
        return t if layout == "rows" else t.contiguous()

    count = new if appended is None else appended
    caches = cache(size), cache(value_size)
    rows = (make(batch, kv_heads, count, size), make(batch, kv_heads, count, value_size)) if count else (None, None)
    given = {"cache_seqlens": numbers(make, *lengths, dtype=torch.int64 if wide else torch.int32), **kwargs}
    if heads != kv_heads:
        given["enable_gqa"] = True
    return (make(batch, heads, new, size), *caches, *rows), given


def paged(
    make: Maker, page: int, args: tuple[Any, ...], given: dict[str, Any], wide: bool = False, layout: str = "heads"
):
    """The same call with its caches in pages, shuffled, among some that hold NaN."""
    q, k, v, *rows = args
    batch, capacity = k.size(0), k.size(2)
    each = -(-capacity // page)
    order = torch.randperm(batch * each + 3, generator=make.generator)[: batch * each].view(batch, each)

    def pages(t: Tensor) -> Tensor:
        made = t.new_full((batch * each + 3, page, t.size(1), t.size(3)), math.nan)
        full = torch.nn.functional.pad(t, (0, 0, 0, each * page - capacity), value=math.nan)
        made[order.to(t.device)] = full.unflatten(2, (each, page)).permute(0, 2, 3, 1, 4)
        return made.transpose(1, 2) if layout == "rows" else made.transpose(1, 2).contiguous()

    table = order.to(torch.int64 if wide else torch.int32)
    used = -(-(given["cache_seqlens"].cpu() + (0 if rows[0] is None else rows[0].size(2))) // page)
    table[torch.arange(each) >= used[:, None]] = -7  # what is not needed is not looked at
    return (q, pages(k), pages(v), *rows), {**given, "block_table": table.to(make.device)}


def slopes(make: Maker, count: int) -> Tensor:
    wide = torch.float64 if make.dtype == torch.float64 else torch.float32
    return (2.0 ** -torch.arange(1, count + 1, dtype=wide)).to(make.device)


def samples(make: Maker) -> Iterator[Sample]:
    def sample(why: str, of: tuple[tuple[Any, ...], dict[str, Any]], **more: Any) -> Sample:
        return Sample(why, *of, **more)

    yield sample("one token, NaN behind it", call(make, 2, 2, 1, 40, 16, (33, 7)), chosen=True)
    yield sample("shared heads, some tokens", call(make, 6, 2, 3, 29, 24, (5, 26, 0), wide=True), chosen=True)
    yield sample("a full cache", call(make, 2, 1, 2, 17, 8, (15, 15)))
    yield sample("no row appended, a sequence of none", call(make, 2, 2, 1, 20, 8, (0, 20, 3), appended=0), chosen=True)
    yield sample("more queries than keys", call(make, 1, 1, 5, 9, 8, (0, 2), appended=2))
    yield sample("not causal", call(make, 2, 2, 4, 30, 16, (11, 2), is_causal=False))
    yield sample("a window", call(make, 2, 1, 2, 60, 16, (50, 3), window=(9, -1)), chosen=True)
    yield sample("a window on both sides", call(make, 2, 2, 6, 40, 8, (30,), is_causal=False, window=(7, 2)))
    yield sample("soft scores", call(make, 2, 2, 2, 30, 16, (19,), softcap=2.0, scale=1.0))
    yield sample("a sink", call(make, 3, 3, 2, 30, 8, (19, 0), sink=make(3), appended=0), chosen=True)
    yield sample("ALiBi", call(make, 4, 2, 3, 30, 8, (19, 4), alibi_slopes=slopes(make, 4)), chosen=True)
    yield sample("another size of values", call(make, 2, 1, 1, 30, 24, (19, 4), value_size=40))
    yield sample("odd sizes", call(make, 2, 2, 2, 23, 13, (19, 4), value_size=7))
    yield sample("rows outside of heads in memory", call(make, 4, 2, 1, 30, 16, (19, 29), layout="rows"), chosen=True)
    _q, *rest = call(make, 2, 2, 3, 30, 16, (19,))[0]
    wide = make(1, 3, 2, 16).transpose(1, 2)
    yield Sample("queries outside of heads in memory", (wide, *rest), {"cache_seqlens": numbers(make, 19)})
    for page, layout in ((1, "heads"), (3, "rows"), (16, "heads"), (64, "rows")):
        of = call(make, 4, 2, 2, 70, 16, (33, 66, 0))
        yield sample(f"pages of {page}", paged(make, page, *of, wide=page == 3, layout=layout), chosen=page in (3, 16))
    of = call(make, 2, 1, 4, 50, 8, (13, 46), value_size=24, window=(12, -1), softcap=3.0, sink=make(2),
              alibi_slopes=slopes(make, 2))  # fmt: skip
    yield sample("pages, and nearly everything at once", paged(make, 5, *of), chosen=True)
    yield sample("many tokens", call(make, 4, 2, 16, 50, 16, (13, 34)))
    yield sample("many tokens, pages", paged(make, 16, *call(make, 4, 2, 16, 50, 16, (13, 34))))
    yield sample("several blocks of keys", call(make, 4, 2, 1, 700, 64, (600, 513)), heavy=True)
    yield sample("several blocks of keys, pages", paged(make, 16, *call(make, 4, 2, 2, 700, 64, (600, 13))), heavy=True)
    yield sample("three parts of the keys", call(make, 2, 2, 1, 900, 32, (899, 40), num_splits=3), heavy=True)
    yield sample("no new token", call(make, 2, 2, 0, 9, 8, (4,)))
    yield sample("no sequence", call(make, 2, 2, 1, 9, 8, ()))


def bad(make: Maker) -> Iterator[BadCall]:
    (q, k, v, nk, nv), given = call(make, 2, 2, 1, 20, 8, (4, 19))

    def wrong(why: str, says: tuple[str, ...], raises: type[Exception] = RuntimeError, **changed: Any) -> BadCall:
        args = {"query": q, "k_cache": k, "v_cache": v, "key": nk, "value": nv, **given, **changed}
        first = tuple(args.pop(n) for n in ("query", "k_cache", "v_cache", "key", "value"))
        return BadCall(why, first, args, says, raises)

    full = {"cache_seqlens": numbers(make, 4, 20)}
    yield wrong("no room for a row", ("cache_seqlens", "20", "room for 20"), ValueError, **full)
    yield wrong("a negative length", ("cache_seqlens", "-1"), ValueError, cache_seqlens=numbers(make, -1, 3))
    yield wrong("lengths of floats", ("cache_seqlens", "float32"), cache_seqlens=torch.ones(2))
    yield wrong("lengths of another batch", ("cache_seqlens", "[3]"), cache_seqlens=numbers(make, 1, 2, 3))
    yield wrong("a key without a value", ("key", "value"), value=None)
    yield wrong("values of other rows", ("value", "[2, 2, 2, 8]"), value=make(2, 2, 2, 8))
    yield wrong("keys of another size", ("key", "[2, 2, 1, 7]"), key=make(2, 2, 1, 7))
    yield wrong("keys of another dtype", ("key", "float64"), key=nk.double())
    yield wrong("a query of three dims", ("query", "[2, 1, 8]"), query=q[:, 0])
    yield wrong("heads that do not fit", ("k_cache", "2 heads"), query=make(2, 4, 1, 8))
    yield wrong("a cache of another batch", ("k_cache", "[1, 2, 20, 8]"), k_cache=k[:1])
    yield wrong("a sink of other heads", ("sink", "[3]"), sink=make(3))
    yield wrong("a window of one side", ("window", "(3,)"), ValueError, window=(3,))
    yield wrong("parts of less than none", ("num_splits", "-1"), ValueError, num_splits=-1)
    yield wrong("a list for a cache", ("k_cache", "list"), TypeError, k_cache=[1.0])
    (_, pk, pv, _, _), more = paged(make, 4, (q, k, v, nk, nv), given)
    pages = {"k_cache": pk, "v_cache": pv}
    for page in (-1, pk.size(0)):
        table = more["block_table"].clone()
        table[1, 0] = page
        yield wrong("no such page", ("block_table", str(page), "[1, 0]"), ValueError, block_table=table, **pages)
    table = more["block_table"]
    yield wrong("a table of one dim", ("block_table", "[5]"), block_table=table[0], **pages)
    yield wrong("a table of floats", ("block_table", "float32"), block_table=table.float(), **pages)
    yield wrong("fewer pages of values", ("v_cache",), block_table=table, k_cache=pk, v_cache=pv[:3])


def flops(sample: Sample) -> float:
    q, _k, v = sample.args[:3]
    keys = float(sample.kwargs["cache_seqlens"].sum()) / max(q.size(0), 1)
    return 2.0 * math.prod(q.shape[:-1]) * keys * (q.size(-1) + v.size(-1))


SPECS: tuple[OpSpec, ...] = (
    OpSpec(
        name="attention_with_kv_cache",
        family="attention",
        op=both(F.attention_with_kv_cache),
        torch=both(reference),
        samples=samples,
        bad=bad,
        flops=flops,
        scale=sizes,
        differentiable=False,
        registered=("append_to_cache", "attention_of_cache"),
    ),
)
