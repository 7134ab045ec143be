"""Attention as ops: softmax(scale * q k') v with what kernels/attention.h adds, and the log of the softmax's sum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends.fall_back import why_watched
from ..core.op import op

Maybe = Tensor | None
Shape = Sequence[int]

_F = torch.nn.functional
GIVEN = 10  # tensors of a call


class Rules(NamedTuple):
    """The op's list of integers."""

    left: int = -1  # keys before a query's own place; -1: all
    right: int = -1
    chunk: int = 0  # keys of a chunk; 0: there are none
    bottom_right: int = 0  # the last query is at the last key
    groups: int = 0  # heads of queries may share those of keys
    longest_queries: int = 0  # of the sequences; 0: unknown
    longest_keys: int = 0


def drawn_seed(query: Tensor, dropout_p: float) -> Tensor | None:
    """Where dropout's random numbers begin: drawn from torch's generator, so that a checkpoint draws it again."""
    if not dropout_p or not isinstance(query, Tensor):
        return None
    return torch.randint(0, 2**62, (2,), dtype=torch.int64, device=query.device)


# ---- the definition, made of torch's functions: the reference, and what is differentiated twice ----


def _wide(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def _scale(q: Tensor, scale: float | None) -> float:
    return max(q.size(-1), 1) ** -0.5 if scale is None else scale


def _visible(rules: Rules, queries: int, keys: int, device: torch.device) -> Maybe:
    """[queries, keys] of bool; None: every key is."""
    if rules.left < 0 and rules.right < 0 and not rules.chunk:
        return None
    place = torch.arange(queries, device=device)[:, None] + (keys - queries if rules.bottom_right else 0)
    key = torch.arange(keys, device=device)
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if rules.left >= 0:
        seen = seen & (key >= place - rules.left)
    if rules.right >= 0:
        seen = seen & (key <= place + rules.right)
    if rules.chunk:
        seen = seen & (key.div(rules.chunk, rounding_mode="floor") == place.div(rules.chunk, rounding_mode="floor"))
    return seen


def _heads(t: Tensor, heads: int) -> Tensor:
    """Keys or values, repeated for the heads that share them."""
    if t.dim() < 3 or t.size(-3) == heads:
        return t
    return t.repeat_interleave(heads // max(t.size(-3), 1), -3)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, where zeros of a count nothing even beside infinities and NaN."""
    unknown = torch.compiler.is_compiling() or type(b) is not Tensor or b.is_meta
    if unknown or why_watched(a, b) is not None or bool(b.isfinite().all()):
        return a @ b
    spoiled = (a != 0).to(a.dtype) @ (~b.isfinite()).to(a.dtype) > 0
    return (a @ b.nan_to_num(0, 0, 0)).masked_fill(spoiled, math.nan)


class _Scores(NamedTuple):
    p: Tensor  # probabilities
    kept: Maybe  # what dropout makes of them: factors of 0 or 1 / (1 - dropout_p)
    slack: Maybe  # the derivative of a score by scale * q k', where softcap makes it another than 1
    lse: Tensor
    sink: Maybe  # the sink's share


def _scores(
    q: Tensor, k: Tensor, bias: Maybe, mask: Maybe, slopes: Maybe, sink: Maybe, kept: Maybe, scale: float,
    softcap: float, rules: Rules,
) -> _Scores:  # fmt: skip
    s = (q @ k.transpose(-1, -2)) * scale
    slack = None
    if softcap:
        t = torch.tanh(s / softcap)
        s, slack = softcap * t, 1 - t * t
    queries, keys = s.shape[-2:]
    if slopes is not None:
        place = torch.arange(queries, device=s.device)[:, None] + (keys - queries if rules.bottom_right else 0)
        far = (place - torch.arange(keys, device=s.device)).abs().to(s.dtype)
        s = s - slopes.detach().to(s.dtype)[..., None, None] * far
    if bias is not None:
        s = s + bias
    seen = _visible(rules, queries, keys, s.device)
    if mask is not None:
        seen = mask if seen is None else seen & mask
    if seen is not None:
        s = torch.where(seen, s, -math.inf)
    top = s.detach().amax(-1, keepdim=True) if keys else s.new_full((*s.shape[:-1], 1), -math.inf)
    if sink is not None:
        sink = sink.to(s.dtype)[:, None, None] if s.dim() > 2 else sink.to(s.dtype)[:, None]
        top = torch.maximum(top, sink.detach())
    # where nothing is visible no gradient may come through, either
    zero = torch.zeros((), dtype=s.dtype, device=s.device)
    hidden = s == -math.inf
    top = torch.where(top == -math.inf, zero, top)
    e = torch.where(hidden, zero, torch.where(hidden, zero, s - top).exp())
    share = None if sink is None else (sink - top).exp()
    total = e.sum(-1, keepdim=True)
    total = total if share is None else total + share
    empty = total == 0
    total = torch.where(empty, 1, total)
    lse = torch.where(empty, -math.inf, top + total.log()).squeeze(-1)
    return _Scores(e / total, kept, slack, lse, None if share is None else (share / total).squeeze(-1))


_MASK = 0xFFFFFFFF


def _times(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """The halves, high and low, of a product of 32-bit numbers, which does not fit int64's sign."""
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    low = low + ((high & 0xFFFF) << 16)
    return (high >> 16) + (low >> 32), low & _MASK


def _kept(shape: Sequence[int], seed: Maybe, dropout_p: float, device: torch.device) -> Maybe:
    """What dropout makes of each probability [..., heads, queries, keys], a factor.

    kernels/math/philox.h in torch's ops, which can be traced.
    """
    if not dropout_p or seed is None:
        return None
    index = torch.arange(math.prod(shape), device=device)
    block = seed[1] + (index >> 2)
    c0, c1 = block & _MASK, (block >> 32) & _MASK
    c2 = c3 = torch.zeros_like(c0)
    k0, k1 = seed[0] & _MASK, (seed[0] >> 32) & _MASK
    for _ in range(10):
        (high0, low0), (high2, low2) = _times(0xD2511F53, c0), _times(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    word = torch.stack((c0, c1, c2, c3), -1).gather(-1, (index & 3)[:, None]).squeeze(-1)
    keep = (word >> 8).to(torch.float32) * 2.0**-24 >= dropout_p  # compared in float32
    return keep.view(shape).double() * (1 / (1 - dropout_p) if dropout_p < 1 else 0)


def _sequences(cu_q: Tensor, cu_k: Tensor) -> Iterator[tuple[slice, slice]]:
    q, k = cu_q.tolist(), cu_k.tolist()
    for name, ends in (("cu_seqlens_q", q), ("cu_seqlens_k", k)):
        if ends[0] != 0 or ends != sorted(ends) or len(ends) != len(q):
            raise ValueError(f"neurokern.attention: argument {name} is {ends}, expected numbers from 0 on that rise")
    for i in range(len(q) - 1):
        yield slice(q[i], q[i + 1]), slice(k[i], k[i + 1])


def _cut(t: Maybe, rows: slice, columns: slice) -> Maybe:
    """Rows and columns of a mask or bias of all sequences."""
    if t is None:
        return None
    t = t[..., rows, :] if t.dim() > 1 and t.size(-2) != 1 else t
    return t[..., columns] if t.size(-1) != 1 else t


def attention_by_torch(
    q: Tensor, k: Tensor, v: Tensor, mask: Maybe, bias: Maybe, slopes: Maybe, sink: Maybe, cu_q: Maybe, cu_k: Maybe,
    seed: Maybe, scale: float | None, softcap: float, dropout_p: float, rules: Sequence[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output and log of the softmax's sum, by the definition: memory is quadratic in length."""
    dtype, rules = q.dtype, Rules(*rules)
    scale = _scale(q, scale)
    heads = q.size(-3) if q.dim() > 2 else 1
    if (cu_q is None) != (cu_k is None):
        raise RuntimeError("neurokern.attention: of cu_seqlens_q and cu_seqlens_k one is given without the other")
    if cu_q is not None and cu_k is not None:
        kept = _kept((heads, q.size(-2), k.size(-2)), seed, dropout_p, q.device)
        out = [torch.zeros(*q.shape[:-1], v.size(-1), dtype=_wide(q).dtype, device=q.device)[..., :0, :]]
        lse = [out[0][..., 0].sum(-1, keepdim=True)[..., :0]]
        for rows, columns in _sequences(cu_q, cu_k):
            made = _one_by_torch(
                q[..., rows, :], k[..., columns, :], v[..., columns, :], _cut(mask, rows, columns),
                _cut(bias, rows, columns), slopes, sink, _cut(kept, rows, columns), scale, softcap, rules,
            )  # fmt: skip
            out.append(made[0])
            lse.append(made[1])
        rest = q.size(-2) - sum(t.size(-2) for t in out)
        o = _F.pad(torch.cat(out, -2), (0, 0, 0, rest))
        return o.to(dtype), _F.pad(torch.cat(lse, -1), (0, rest), value=-math.inf)
    kept = _kept((*q.shape[:-1], k.size(-2)), seed, dropout_p, q.device)
    out, lse = _one_by_torch(q, k, v, mask, bias, slopes, sink, kept, scale, softcap, rules)
    return out.to(dtype), lse


def _one_by_torch(
    q: Tensor, k: Tensor, v: Tensor, mask: Maybe, bias: Maybe, slopes: Maybe, sink: Maybe, kept: Maybe, scale: float,
    softcap: float, rules: Rules,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    heads = q.size(-3) if q.dim() > 2 else 1
    k, v = _heads(_wide(k), heads), _heads(_wide(v), heads)
    s = _scores(_wide(q), k, bias, mask, slopes, sink, kept, scale, softcap, rules)
    p = s.p if kept is None else s.p * kept.to(s.p.dtype)
    return _product(p, v), s.lse


def _output_by_torch(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    mask, bias, slopes, sink, cu_q, _, seed, scale, softcap, dropout_p, rules = rest
    rules = Rules(*rules)
    plain = slopes is None and sink is None and cu_q is None and not softcap and not rules.chunk and seed is None
    if plain and rules.left < 0 and (rules.right < 0 or (rules.right == 0 and not rules.bottom_right)):
        given = mask if bias is None else bias if mask is None else torch.where(mask, bias, -math.inf)
        causal, groups = rules.right == 0, bool(rules.groups)
        if causal and given is not None:
            seen = _visible(rules, q.size(-2), k.size(-2), q.device)
            given = given & seen if given.dtype == torch.bool else torch.where(seen, given, -math.inf)
            causal = False
        return _F.scaled_dot_product_attention(q, k, v, given, dropout_p, causal, scale=scale, enable_gqa=groups)
    return attention_by_torch(q, k, v, *rest)[0]


def _fake(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    shape = (*q.shape[:-1], v.size(-1))
    out = q.new_empty(shape) if q.is_contiguous() else _new_heads(q, shape)
    return out, q.new_empty(q.shape[:-1], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)


def _new_heads(like: Tensor, shape: Sequence[int]) -> Tensor:
    if len(shape) < 3:
        return like.new_empty(shape)
    *batch, heads, rows, columns = shape
    return like.new_empty((*batch, rows, heads, columns)).transpose(-3, -2)


def _gradients_fake(tensors: Sequence[Maybe], wants: Sequence[bool]) -> tuple[Maybe, ...]:
    made: list[Maybe] = [None] * GIVEN
    for i in range(3):
        made[i] = _new_heads(tensors[i], tensors[i].shape) if wants[i] else None
    for i in (4, 6):
        if tensors[i] is not None and wants[i]:
            made[i] = torch.empty_like(tensors[i], memory_format=torch.contiguous_format)
    return tuple(made)


def _formula(
    g: Tensor, g_lse: Maybe, q: Tensor, k: Tensor, v: Tensor, mask: Maybe, bias: Maybe, slopes: Maybe, sink: Maybe,
    cu_q: Maybe, cu_k: Maybe, seed: Maybe, output: Tensor, lse: Tensor, scale: float | None, softcap: float,
    dropout_p: float, rules: Sequence[int], wants: Sequence[bool],
) -> tuple[Maybe, ...]:  # fmt: skip
    """The gradients, of functions that can be differentiated once more: probabilities are made again."""
    rules = Rules(*rules)
    scale = _scale(q, scale)
    heads = q.size(-3) if q.dim() > 2 else 1
    made: list[Maybe] = [None] * GIVEN
    if cu_q is None or cu_k is None:
        kept = _kept((*q.shape[:-1], k.size(-2)), seed, dropout_p, q.device)
        parts = _parts(g, g_lse, q, k, v, mask, bias, slopes, sink, kept, scale, softcap, rules)
        for i, part in enumerate(parts):
            made[(0, 1, 2, 4, 6)[i]] = part
    else:
        kept = _kept((heads, q.size(-2), k.size(-2)), seed, dropout_p, q.device)
        rows_of: list[list[Tensor]] = [[], [], []]
        for rows, columns in _sequences(cu_q, cu_k):
            parts = _parts(
                g[..., rows, :], None if g_lse is None else g_lse[..., rows], q[..., rows, :], k[..., columns, :],
                v[..., columns, :], _cut(mask, rows, columns), _cut(bias, rows, columns), slopes, sink,
                _cut(kept, rows, columns), scale, softcap, rules,
            )  # fmt: skip
            for i in range(3):
                rows_of[i].append(parts[i])
            if sink is not None:
                made[6] = parts[4] if made[6] is None else made[6] + parts[4]
            if bias is not None:
                whole = torch.zeros(bias.shape, dtype=parts[3].dtype, device=bias.device)
                target = _cut(whole, rows, columns)
                target += parts[3]
                made[4] = whole if made[4] is None else made[4] + whole
        for i, t in enumerate((q, k, v)):
            rest = t.size(-2) - sum(x.size(-2) for x in rows_of[i])
            empty = [torch.zeros((*t.shape[:-2], rest, t.size(-1)), dtype=_wide(t).dtype, device=t.device)]
            made[i] = torch.cat(rows_of[i] + empty, -2)
    given = (q, k, v, None, bias, None, sink)
    for i, t in enumerate(given):
        made[i] = made[i].to(t.dtype) if wants[i] and made[i] is not None and t is not None else None
    return tuple(made)


def _parts(
    g: Tensor, g_lse: Maybe, q: Tensor, k: Tensor, v: Tensor, mask: Maybe, bias: Maybe, slopes: Maybe, sink: Maybe,
    kept: Maybe, scale: float, softcap: float, rules: Rules,
) -> tuple[Tensor, Tensor, Tensor, Maybe, Maybe]:  # fmt: skip
    heads = q.size(-3) if q.dim() > 2 else 1
    g, q, own_k, own_v = map(_wide, (g, q, k, v))
    k, v = _heads(own_k, heads), _heads(own_v, heads)
    s = _scores(q, k, bias, mask, slopes, sink, kept, scale, softcap, rules)
    drop = 1 if kept is None else kept.to(s.p.dtype)
    p = s.p * drop
    seen = s.p != 0
    gp = torch.where(seen, (g @ v.transpose(-1, -2)) * drop, 0)
    # not g * output: of a single key, gp - delta is 0 then
    delta = (s.p * gp).sum(-1, keepdim=True)
    if g_lse is not None:
        delta = delta - g_lse.unsqueeze(-1)
    gs = torch.where(seen, s.p * (gp - delta), 0)
    gx = (gs if s.slack is None else gs * s.slack) * scale

    def shared(t: Tensor, like: Tensor) -> Tensor:
        if t.shape == like.shape:
            return t
        return t.unflatten(-3, (like.size(-3), -1)).sum(-3)

    gk = shared(_product(gx.transpose(-1, -2), q), own_k)
    gv = shared(_product(p.transpose(-1, -2), g), own_v)
    gb = None if bias is None else gs.sum_to_size(bias.shape)
    gsink = None
    if sink is not None and s.sink is not None:
        of_heads = s.sink * delta.squeeze(-1)  # [..., heads, queries]
        gsink = -of_heads.sum((*range(of_heads.dim() - 2), -1)).reshape(sink.shape)
    return _product(gx, k), gk, gv, gb, gsink


def _flops(q: Shape, k: Shape, v: Shape, *rest: Any) -> int:
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _backward_flops(g: Shape, q: Shape, k: Shape, v: Shape, *rest: Any) -> int:
    """Scores once more, and two products for each of the forward's, as torch counts them."""
    return 2 * math.prod(q[:-1]) * k[-2] * (3 * q[-1] + 2 * v[-1])


def _prepare(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Any:
    """What torch broadcasts and the kernels do not: batch dims, ranks, a single head."""
    inner = 3 if rest[-1][4] else 2  # heads that are shared in groups are no batch dim
    if min(t.dim() for t in (q, k, v)) < inner:
        return q, k, v, *rest
    try:
        shape = torch.broadcast_shapes(*(t.shape[:-inner] for t in (q, k, v)))
    except RuntimeError:  # the kernel says what does not fit
        return q, k, v, *rest
    repeated = [t if t.shape[:-inner] == shape else t.expand(*shape, *t.shape[-inner:]) for t in (q, k, v)]
    return *repeated, *rest


def _dims(out: Maybe, q: Shape, k: Shape, v: Shape, *rest: Any) -> tuple[list[Any], list[Any]]:
    """Batch dims may be cut, and heads where each has its own keys; rows and columns never."""
    cut = rest[3] is None and rest[5] is None and rest[6] is None  # packed rows and random numbers go by all of them
    own = [i if cut else None for i in range(len(q) - 2)]
    if own and tuple(k[:-2]) != tuple(q[:-2]):
        own[-1] = None
    names = [*own, None, None]

    def of(t: Shape | None, inner: int) -> list[Any]:
        if t is None:
            return names
        missing = len(names) - inner - len(t)
        return [
            n if size == q[i + missing] else None for i, (n, size) in enumerate(zip(names[missing:], t, strict=False))
        ]

    mask, bias, slopes = rest[:3]
    given = [names, names, names, of(mask, 0), of(bias, 0), of(slopes, 2), own[-1:] or [None]]
    return [*given, *[[None] * 8] * 3], [names, names[:-1]]


_GIVEN = (
    "Tensor query, Tensor key, Tensor value, Tensor? mask, Tensor? bias, Tensor? slopes, Tensor? sink,"
    " Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seed,"
    " float? scale, float softcap, float dropout_p, int[] rules"
)
_SAVES = "query key value mask bias slopes sink cu_seqlens_q cu_seqlens_k seed output lse"
_COMMON: dict[str, Any] = {
    "fake": _fake,
    "saves": _SAVES,
    "integers": "mask cu_seqlens_q cu_seqlens_k seed",
    "constants": "mask slopes cu_seqlens_q cu_seqlens_k seed",
    "autocast": "lower",
    "flops": _flops,
    "prepare": _prepare,
    "dims": _dims,
}

_OUTPUT: dict[str, Any] = {
    "returns": 1,
    "backward": "attention_backward",
    "gradients": lambda g, *args: _gradients_fake(args[:GIVEN], args[-1]),
    "formula": lambda g, *args: _formula(g, None, *args),
    "torch": _output_by_torch,
    "torch_recorded": attention_by_torch,
    "backward_flops": lambda g, *args: _backward_flops(g, *args),
    **_COMMON,
}

attention = op(f"attention({_GIVEN}) -> (Tensor output, Tensor lse)", **_OUTPUT)
# the same by torch's name, for messages: its attn_mask is one of two, by its dtype
_NAMED = _GIVEN.replace("Tensor? mask, Tensor? bias", "Tensor? bool_attn_mask, Tensor? attn_mask")
scaled_dot_product_attention = op(
    f"scaled_dot_product_attention({_NAMED}) -> (Tensor output, Tensor lse)",
    **{
        **_OUTPUT,
        "saves": _SAVES.replace("mask bias", "bool_attn_mask attn_mask"),
        "integers": "bool_attn_mask cu_seqlens_q cu_seqlens_k seed",
        "constants": "bool_attn_mask slopes cu_seqlens_q cu_seqlens_k seed",
    },
)
attention_with_lse = op(
    f"attention_with_lse({_GIVEN}) -> (Tensor output, Tensor lse)",
    gradients=lambda g, g_lse, *args: _gradients_fake(args[:GIVEN], args[-1]),
    formula=_formula,
    torch=attention_by_torch,
    backward_flops=lambda g, g_lse, *args: _backward_flops(g, *args),
    **_COMMON,
)
