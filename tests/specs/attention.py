"""scaled_dot_product_attention and attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern.ops.attention import Rules, _cut, _heads, _kept, _scores, _sequences, attention_by_torch
from neurokern.testing.spec import BadCall, Draw, Maker, OpSpec, Sample
from torch import Tensor

TF = torch.nn.functional


def heads(make: Maker, batch: int, count: int, queries: int, keys: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    return make(batch, count, queries, size), make(batch, count, keys, size), make(batch, count, keys, size)


def mask(make: Maker, *shape: int) -> Tensor:
    """Two thirds of the keys."""
    return (torch.rand(shape, generator=make.generator) < 2 / 3).to(make.device)


def samples(make: Maker) -> Iterator[Sample]:
    yield Sample("one tile and its edges", heads(make, 2, 3, 37, 41, 24), chosen=True)
    yield Sample("causal", heads(make, 1, 2, 45, 45, 32), {"is_causal": True}, chosen=True)
    yield Sample("causal, fewer queries than keys", heads(make, 1, 2, 9, 21, 16), {"is_causal": True})
    yield Sample("causal, more queries than keys", heads(make, 1, 2, 21, 9, 16), {"is_causal": True})
    yield Sample("a bool mask", (*heads(make, 2, 2, 17, 19, 16), mask(make, 2, 1, 17, 19)), chosen=True)
    yield Sample("numbers that are added", (*heads(make, 2, 2, 17, 19, 16), make(2, 17, 19)), chosen=True)
    yield Sample("numbers for the keys alone", (*heads(make, 2, 2, 5, 19, 16), make(19).view(1, 19)))
    yield Sample("a mask, and causal", (*heads(make, 1, 2, 13, 13, 8), mask(make, 13, 13)), {"is_causal": True})
    hidden = mask(make, 11, 13)
    hidden[3], hidden[7] = False, False
    yield Sample("queries that see nothing", (*heads(make, 1, 2, 11, 13, 8), hidden))
    q, k, v = make(2, 6, 10, 16), make(2, 2, 12, 16), make(2, 2, 12, 16)
    yield Sample("three heads of queries share one of keys", (q, k, v), {"enable_gqa": True}, chosen=True)
    yield Sample("another size of values", (make(1, 2, 9, 24), make(1, 2, 11, 24), make(1, 2, 11, 40)))
    yield Sample("heads within the rows of memory", [t.transpose(1, 2) for t in heads(make, 2, 15, 3, 3, 16)])
    packed = make(2, 14, 3, 4, 16)
    yield Sample("slices of one projection", tuple(packed[:, :, i].transpose(1, 2) for i in range(3)))
    yield Sample("a strided last dim", tuple(t.mT.contiguous().mT for t in heads(make, 1, 2, 9, 11, 8)))
    yield Sample("an expanded key", (make(2, 4, 5, 8), make(1, 1, 7, 8).expand(2, 4, 7, 8), make(2, 4, 7, 8)))
    yield Sample("sizes of no power of two", heads(make, 1, 2, 7, 9, 13))
    yield Sample("a size of one", heads(make, 1, 1, 5, 6, 1))
    yield Sample("three dims", (make(3, 7, 8), make(3, 9, 8), make(3, 9, 8)))
    yield Sample("two dims", (make(7, 8), make(9, 8), make(9, 8)))
    yield Sample("five dims", (make(2, 2, 3, 7, 8), make(2, 2, 3, 9, 8), make(2, 2, 3, 9, 8)))
    yield Sample("one query of many keys", heads(make, 2, 4, 1, 131, 32), chosen=True)
    yield Sample("a scale of one's own", heads(make, 1, 2, 9, 9, 8), {"scale": 0.25})
    q, k = (make.grid(1, 2, 9, 16, step=1.0, limit=8) for _ in range(2))  # no rounding of a score decides
    yield Sample("large scores: exp overflows unless shifted", (q, k, make(1, 2, 9, 16)))
    yield Sample("no keys", (make(2, 3, 5, 8), make(2, 3, 0, 8), make(2, 3, 0, 8)))
    yield Sample("no queries", (make(2, 3, 0, 8), make(2, 3, 5, 8), make(2, 3, 5, 8)))
    yield Sample("no batch", heads(make, 0, 3, 4, 5, 8))
    yield Sample("a NaN that is seen", (*spoiled(make, 0, 2), None))
    yield Sample("several tiles", heads(make, 1, 2, 150, 333, 64), heavy=True)
    yield Sample("several tiles, causal", heads(make, 1, 2, 300, 300, 64), {"is_causal": True}, heavy=True)


def spoiled(make: Maker, head: int, query: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = heads(make, 1, 2, 7, 7, 8)
    q = q.detach().clone()
    q[0, head, query, 3] = math.nan
    return q.requires_grad_(make.requires_grad), k, v


def smooth(make: Maker) -> Iterator[Sample]:
    yield Sample("causal", heads(make, 1, 2, 7, 8, 6), {"is_causal": True})
    yield Sample("numbers that are added", (*heads(make, 2, 1, 6, 8, 6), make(6, 8)))


def bad(make: Maker) -> Iterator[BadCall]:
    q = make(2, 3, 4, 8)
    yield BadCall("a list for a tensor", ([1.0], q, q), says=("query", "list"))
    yield BadCall("a vector", (make(4), make(4), make(4)), says=("query", "[4]"))
    yield BadCall("another size of keys", (q, make(2, 3, 5, 7), q), says=("key", "[2, 3, 5, 7]"))
    yield BadCall(
        "values of other rows", (q, make(2, 3, 5, 8), make(2, 3, 6, 8)), says=("value", "[2, 3, 6, 8]"),
        raises=RuntimeError,
    )  # fmt: skip
    yield BadCall("heads that do not fit", (q, make(2, 2, 4, 8), make(2, 2, 4, 8)), says=("2", "3"))
    yield BadCall(
        "heads that do not divide", (q, make(2, 2, 4, 8), make(2, 2, 4, 8)), {"enable_gqa": True}, ("key", "2 heads")
    )
    yield BadCall("a mask of other sizes", (q, q, q, make(3, 4)), says=("attn_mask", "[3, 4]"))
    yield BadCall("a mask of integers", (q, q, q, torch.zeros(4, 4, dtype=torch.int32)), says=("int32",))
    yield BadCall("no probability", (q, q, q), {"dropout_p": 1.5}, says=("dropout_p", "1.5"))
    yield BadCall("a word for the scale", (q, q, q), {"scale": "large"}, says=("scale",))


def drawn(make: Maker, draw: Draw) -> Sample:
    queries, keys, size = draw.integer(1, 40), draw.integer(1, 40), draw.integer(1, 40)
    return Sample(
        "drawn",
        heads(make, draw.integer(1, 2), draw.integer(1, 3), queries, keys, size),
        {"is_causal": draw.integer(0, 1) == 1},
    )


# ---- attention with everything ----


def reference(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, causal_align: str = "top-left",
    window: tuple[int, int] | None = None, chunk: int | None = None, mask: Tensor | None = None,
    bias: Tensor | None = None, alibi_slopes: Tensor | None = None, softcap: float = 0.0, sink: Tensor | None = None,
    dropout_p: float = 0.0, scale: float | None = None, enable_gqa: bool = False, cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None, seed: Tensor | None = None, return_lse: bool = False,
    max_seqlen_q: int = 0, max_seqlen_k: int = 0,
) -> Any:  # fmt: skip
    """The definition in torch's functions."""
    left, right = window or (-1, -1)
    rules = Rules(left, 0 if is_causal else right, chunk or 0, causal_align == "bottom-right", enable_gqa)
    made = attention_by_torch(
        query, key, value, mask, bias, alibi_slopes, sink, cu_seqlens_q, cu_seqlens_k, seed, scale, softcap, dropout_p,
        rules,
    )  # fmt: skip
    return made if return_lse else made[0]


def exact(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """torch's own has no second derivative on the CPU."""
    name = "mask" if attn_mask is not None and attn_mask.dtype == torch.bool else "bias"
    given: dict[str, Any] = {name: attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    return reference(query, key, value, **given)


def sizes(sample: Sample, g: tuple[Tensor, ...], reference: list[tuple[str, Tensor]]) -> list[Tensor] | None:
    """Sizes of the terms: a gradient of a score is the difference of gp and delta, which is made of the output."""
    given = dict(zip(("query", "key", "value", "attn_mask"), sample.args, strict=False)) | sample.kwargs
    q, k, v = given["query"], given["key"], given["value"]
    if len(reference) > 1 + len(g[1:]) or not q.numel() or not k.numel():
        return None
    if given.get("attn_mask") is not None:
        given["mask" if given["attn_mask"].dtype == torch.bool else "bias"] = given["attn_mask"]
    left, right = given.get("window") or (-1, -1)
    bottom = given.get("causal_align") == "bottom-right"
    rules = Rules(left, 0 if given.get("is_causal") else right, given.get("chunk") or 0, bottom)
    bias, sink = given.get("bias"), given.get("sink")
    scale = given["scale"] if given.get("scale") is not None else q.size(-1) ** -0.5
    g_out = g[0][..., : v.size(-1)].abs()
    g_lse = g[0][..., v.size(-1)].abs() if g[0].size(-1) > v.size(-1) else None
    heads = q.size(-3) if q.dim() > 2 else 1
    kept = _kept((*q.shape[:-1], k.size(-2)), given.get("seed"), given.get("dropout_p", 0.0), q.device)
    found = {n: torch.zeros(x.shape, dtype=torch.float64) for n, x in given.items() if isinstance(x, Tensor)}
    found |= {"output": torch.zeros(g_out.shape, dtype=torch.float64), "lse": torch.zeros(q.shape[:-1]).double()}
    ends = [given.get(f"cu_seqlens_{x}") for x in "qk"]
    whole = [(slice(None), slice(None))]
    for rows, columns in whole if ends[0] is None else _sequences(*ends):
        mine, other = _cut(bias, rows, columns), _cut(given.get("mask"), rows, columns)
        own_q, own_k, own_v = q[..., rows, :], k[..., columns, :], v[..., columns, :]
        if not own_k.numel():
            continue
        wide_k, wide_v = _heads(own_k, heads), _heads(own_v, heads)
        s = _scores(own_q, wide_k, mine, other, given.get("alibi_slopes"), sink, None, scale, given.get("softcap", 0.0),
                    rules)  # fmt: skip
        drop = 1 if kept is None else _cut(kept, rows, columns)
        p = s.p.nan_to_num(0.0)
        # an error of a score is one of its probability, and of all others by their sum
        score = 1 + (own_q.abs() @ wide_k.abs().mT).nan_to_num(0.0) * scale + (0 if mine is None else mine.abs())
        share = p * (score + (p * score).sum(-1, keepdim=True))
        out = (share * drop) @ wide_v.abs()
        cotangent = g_out[..., rows, :]
        delta = (cotangent * out).sum(-1, keepdim=True) + (0 if g_lse is None else g_lse[..., rows, None])
        gs = share * ((cotangent @ wide_v.abs().mT) * drop + delta)
        gx = gs * scale
        found["output"][..., rows, :] = out
        found["lse"][..., rows] = score.amax(-1) + 1
        found["query"][..., rows, :] = gx @ wide_k.abs()
        for name, x, like in (("key", gx.mT @ own_q.abs(), own_k), ("value", (share * drop).mT @ cotangent, own_v)):
            shared = x if x.shape == like.shape else x.unflatten(-3, (like.size(-3), -1)).sum(-3)
            found[name][..., columns, :] = shared
        if bias is not None:
            part = _cut(found["attn_mask" if "attn_mask" in found else "bias"], rows, columns)
            part += gs.sum_to_size(part.shape)
        if sink is not None and s.sink is not None:
            of_heads = s.sink * delta.squeeze(-1)
            found["sink"] += of_heads.sum((*range(of_heads.dim() - 2), -1)).reshape(-1)
    names = [n for n, x in given.items() if isinstance(x, Tensor) and x.is_floating_point()]
    names = list(dict.fromkeys(names)) if "attn_mask" not in given else [n for n in names if n != "bias"]
    output = found["output"] if g_lse is None else torch.cat((found["output"], found["lse"].unsqueeze(-1)), -1)
    by_name = {"output": output} | {f"gradient of tensor {i}": found[n] for i, n in enumerate(names)}
    return [by_name[name] for name, _ in reference]


def with_lse(f: Any) -> Any:
    """Output and log of the sum as one tensor, which is what specs compare."""

    def both(*args: Any, **kwargs: Any) -> Tensor:
        out, lse = f(*args, return_lse=True, **kwargs)
        return torch.cat((out, lse.masked_fill(lse == -math.inf, 0).unsqueeze(-1).to(out.dtype)), -1)

    return both


def slopes(make: Maker, count: int) -> Tensor:
    wide = torch.float64 if make.dtype == torch.float64 else torch.float32
    return (2.0 ** -torch.arange(1, count + 1, dtype=wide)).to(make.device)


def integers(make: Maker, *numbers: int) -> Tensor:
    return torch.tensor(numbers, device=make.device)


def everything(make: Maker) -> Iterator[Sample]:
    bottom = {"is_causal": True, "causal_align": "bottom-right"}
    yield Sample("causal to the last key", heads(make, 1, 2, 9, 21, 16), bottom, chosen=True)
    yield Sample("five queries of two keys: three see nothing", heads(make, 1, 1, 5, 2, 8), bottom, chosen=True)
    yield Sample("a window on both sides", heads(make, 1, 2, 40, 40, 16), {"window": (3, 5)}, chosen=True)
    # by itself its gradient would be nothing but what rounding leaves of gp - delta
    yield Sample("the place alone, and a sink", heads(make, 1, 2, 12, 12, 8), {"window": (0, 0), "sink": make(2)})
    yield Sample("a window, causal, to the last key", heads(make, 1, 2, 9, 30, 8), {"window": (4, -1), **bottom})
    yield Sample("chunks", heads(make, 1, 2, 23, 23, 8), {"chunk": 5, "is_causal": True})
    yield Sample("ALiBi", heads(make, 2, 4, 17, 19, 16), {"alibi_slopes": slopes(make, 4), **bottom}, chosen=True)
    yield Sample("soft scores", heads(make, 1, 2, 13, 17, 16), {"softcap": 2.0, "scale": 1.0}, chosen=True)
    yield Sample("a sink", heads(make, 2, 3, 9, 11, 8), {"sink": make(3)}, chosen=True)
    yield Sample("a sink, and queries that see nothing", heads(make, 1, 2, 6, 3, 8), {"sink": make(2), **bottom})
    yield Sample("a bias that all heads share", heads(make, 2, 3, 9, 11, 8), {"bias": make(9, 11)}, chosen=True)
    yield Sample("a bias of each head", heads(make, 2, 3, 9, 11, 8), {"bias": make(3, 9, 11)})
    yield Sample("a bias of the keys", heads(make, 2, 3, 9, 11, 8), {"bias": make(2, 1, 1, 11)})
    both = {"bias": make(2, 1, 9, 11), "mask": mask(make, 3, 9, 11)}
    yield Sample("a bias and a mask", heads(make, 2, 3, 9, 11, 8), both)
    ends = {"cu_seqlens_q": integers(make, 0, 5, 5, 13), "cu_seqlens_k": integers(make, 0, 7, 9, 9)}
    q, k, v = make(2, 15, 8), make(2, 12, 8), make(2, 12, 8)
    yield Sample("sequences, some of none, and rows behind them", (q, k, v), ends, chosen=True)
    ends = {"cu_seqlens_q": integers(make, 0, 9, 20), "cu_seqlens_k": integers(make, 0, 9, 20)}
    q, k, v = make(20, 4, 16).transpose(0, 1), make(20, 2, 16).transpose(0, 1), make(20, 2, 16).transpose(0, 1)
    grouped = {**ends, "is_causal": True, "enable_gqa": True}
    yield Sample("sequences, rows first in memory, shared heads", (q, k, v), grouped, chosen=True)
    dropped = {"dropout_p": 0.25, "seed": integers(make, 2**40 + 7, 11)}
    yield Sample("dropout", heads(make, 2, 2, 19, 23, 8), dropped, chosen=True)
    yield Sample("dropout of sequences", (make(2, 20, 8), make(2, 20, 8), make(2, 20, 8)), {**dropped, **ends})
    before = {"window": (0, 0), "causal_align": "bottom-right", "sink": make(1)}
    yield Sample("queries before the first key that see nothing", heads(make, 1, 1, 8, 5, 8), before)
    yield Sample(
        "chunks, more queries than keys", heads(make, 1, 2, 8, 6, 8), {"chunk": 2, **bottom, "is_causal": False}
    )
    yield Sample("two dims and a sink", (make(5, 8), make(6, 8), make(6, 8)), {"sink": make(1)})
    yield Sample("no batch, and a bias", heads(make, 0, 2, 3, 4, 8), {"bias": make(3, 4)})
    longest = {"cu_seqlens_q": integers(make, 0, 33, 50), "cu_seqlens_k": integers(make, 0, 33, 50), "max_seqlen_q": 33,
               "max_seqlen_k": 40}  # fmt: skip
    yield Sample("sequences whose longest is known", (make(2, 50, 8), make(2, 50, 8), make(2, 50, 8)), longest)
    yield Sample("no batch, with a window", heads(make, 0, 2, 5, 5, 8), {"window": (1, 1)})
    q, k, v = make(1, 4, 11, 8), make(1, 2, 13, 8), make(1, 2, 13, 6)
    most = {
        "window": (6, -1), "softcap": 3.0, "sink": make(4), "bias": make(4, 11, 13), "alibi_slopes": slopes(make, 4),
        "mask": mask(make, 11, 13), "enable_gqa": True, **bottom, **dropped,
    }  # fmt: skip
    yield Sample("nearly everything at once", (q, k, v), most, chosen=True)


def everything_smooth(make: Maker) -> Iterator[Sample]:
    more = {"window": (2, 1), "softcap": 2.0, "bias": make(6, 8)}
    yield Sample("a window, soft scores, a bias", heads(make, 1, 1, 6, 8, 6), more)
    yield Sample("a sink", heads(make, 1, 2, 6, 8, 6), {"sink": make(2)})


def everything_bad(make: Maker) -> Iterator[BadCall]:
    q = make(2, 3, 4, 8)
    yield BadCall("no name", (q, q, q), {"causal_align": "left"}, ("causal_align", "left"), ValueError)
    yield BadCall("a window of one side", (q, q, q), {"window": (3,)}, ("window", "(3,)"), ValueError)
    yield BadCall("a chunk of nothing", (q, q, q), {"chunk": 0}, ("chunk", "0"), ValueError)
    yield BadCall("a sink of other heads", (q, q, q), {"sink": make(2)}, ("sink", "[2]"), RuntimeError)
    yield BadCall("slopes of other heads", (q, q, q), {"alibi_slopes": make(2)}, ("slopes", "[2]"), RuntimeError)
    yield BadCall("a mask of numbers", (q, q, q), {"mask": make(4, 4)}, ("mask", "float32"), RuntimeError)
    yield BadCall(
        "ends of one side", (q, q, q), {"cu_seqlens_q": torch.tensor([0, 4])}, ("cu_seqlens_k",), RuntimeError
    )
    ends = {"cu_seqlens_q": torch.tensor([0, 3, 2]), "cu_seqlens_k": torch.tensor([0, 2, 4])}
    yield BadCall("ends that fall", (q[0], q[0], q[0]), ends, ("cu_seqlens_q", "2"), ValueError)
    short = {"cu_seqlens_q": torch.tensor([0, 2, 4]), "cu_seqlens_k": torch.tensor([0, 1, 4]), "max_seqlen_k": 2}
    yield BadCall("a sequence longer than the longest", (q[0], q[0], q[0]), short, ("cu_seqlens_k", "3"), ValueError)
    yield BadCall("ends beside a batch", (q, q, q), ends, ("query",), RuntimeError)


def bench(make: Maker, batch: int, count: int, length: int, size: int, causal: bool) -> Sample:
    return Sample(f"{batch} x {count} x {length} x {size}", heads(make, batch, count, length, length, size),
                  {"is_causal": causal})  # fmt: skip


def flops(sample: Sample) -> float:
    q, k, v = sample.args[:3]
    half = 0.5 if sample.kwargs.get("is_causal") else 1
    return half * 2.0 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


_common: dict[str, Any] = {"family": "attention", "scale": sizes, "backends": ("cpu", "cuda", "triton")}

SPECS: tuple[OpSpec, ...] = (
    OpSpec(
        name="scaled_dot_product_attention",
        op=F.scaled_dot_product_attention,
        torch=TF.scaled_dot_product_attention,
        exact=exact,
        samples=samples,
        smooth=smooth,
        drawn=drawn,
        bad=bad,
        bench=bench,
        flops=flops,
        registered=("scaled_dot_product_attention", "scaled_dot_product_attention_recorded", "attention_backward"),
        **_common,
    ),
    OpSpec(
        name="attention",
        op=F.attention,
        torch=reference,
        samples=everything,
        smooth=everything_smooth,
        bad=everything_bad,
        registered=("attention", "attention_recorded", "attention_backward"),
        **_common,
    ),
    OpSpec(
        name="attention",
        variant="with_lse",
        op=with_lse(F.attention),
        torch=with_lse(reference),
        samples=everything,
        smooth=partial(everything_smooth),
        registered=("attention_with_lse", "attention_with_lse_backward"),
        **_common,
    ),
)
