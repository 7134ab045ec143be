"""Multi-head attention with its projections, with the signature of ``torch.nn.functional``."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..backends.trace import record
from ..core.subclass import not_plain
from ..core.tensors import PLAIN
from ..ops.matmul import matmul as _matmul
from .attention import attention
from .matmul import linear, matmul
from .softmax import softmax

__all__ = ["multi_head_attention_forward"]

_NAME = "multi_head_attention_forward"


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    batch_first: bool = False,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Projections, attention of every head, and the output's projection. Source: Vaswani et al. 2017.

    With L queries, S keys, N batches, H heads and E features:

    Args:
        query: [L, N, E], or [L, E] without a batch.
        key: [S, N, E], or the features of k_proj_weight.
        value: [S, N, E], or the features of v_proj_weight.
        embed_dim_to_check: E.
        num_heads: H, a divisor of E.
        in_proj_weight: [3 * E, E], those of query, key and value one below the other.
        in_proj_bias: [3 * E].
        bias_k, bias_v: [1, 1, E], one more key and value that every query sees.
        add_zero_attn: whether every query sees one more key and value, of zeros.
        dropout_p: probability of leaving out a weight, in training.
        out_proj_weight: [E, E].
        out_proj_bias: [E].
        key_padding_mask: [N, S], or [S] without a batch: keys that no query sees (bool), or what is added to their
            scores (float).
        need_weights: whether the weights are returned, which then take memory of [N, H, L, S].
        attn_mask: [L, S] or [N * H, L, S]: True where a query does not see a key, or floats to add to the scores.
        use_separate_proj_weight: whether q_proj_weight [E, E], k_proj_weight [E, any] and v_proj_weight [E, any] take
            the place of in_proj_weight.
        static_k, static_v: [N * H, S, E / H] in the place of the projected key and value.
        average_attn_weights: whether the weights returned are the mean of the heads.
        is_causal: query i sees keys 0 .. i, of those that attn_mask leaves. torch takes it for a hint that attn_mask
            says the same, and leaves out one of the two; here both hold.
        batch_first: whether query, key, value and output have the batch before the length.
        residual: of the shape of query, added to the output in the same pass.

    Returns:
        The output, of the shape of query, and the weights [N, L, S] or [N, H, L, S] (without N if there is no batch),
        after dropout, or None. A query that sees no key has weights of 0, where torch's are NaN.

    Raises:
        AssertionError: shapes do not match, or a mask is neither bool nor float.
        RuntimeError: attn_mask has another shape, or is_causal is given without one.
    """
    tensors = {
        "query": query,
        "key": key,
        "value": value,
        "in_proj_weight": in_proj_weight,
        "in_proj_bias": in_proj_bias,
        "bias_k": bias_k,
        "bias_v": bias_v,
        "out_proj_weight": out_proj_weight,
        "out_proj_bias": out_proj_bias,
        "key_padding_mask": key_padding_mask,
        "attn_mask": attn_mask,
        "q_proj_weight": q_proj_weight,
        "k_proj_weight": k_proj_weight,
        "v_proj_weight": v_proj_weight,
        "static_k": static_k,
        "static_v": static_v,
        "residual": residual,
    }
    if any(t is not None and type(t) not in PLAIN for t in tensors.values()):
        parameters = {
            **{k: v for k, v in tensors.items() if k not in ("query", "key", "value", "residual")},
            "embed_dim_to_check": embed_dim_to_check,
            "num_heads": num_heads,
            "add_zero_attn": add_zero_attn,
            "dropout_p": dropout_p,
            "training": training,
            "need_weights": need_weights,
            "use_separate_proj_weight": use_separate_proj_weight,
            "average_attn_weights": average_attn_weights,
            "is_causal": is_causal,
        }
        needed = ("query", "key", "value", "out_proj_weight")
        arguments = [(name, t, name not in needed) for name, t in tensors.items()]
        by_torch = partial(_by_torch, batch_first, residual, query, key, value, **parameters)
        more = {"batch_first": batch_first, "residual": residual}
        ours = partial(multi_head_attention_forward, query, key, value, **parameters, **more)
        foreign = not_plain(_NAME, arguments, by_torch, ours)
        if foreign is not NotImplemented:
            return foreign

    batched = _check_shapes(query, key, value, key_padding_mask, attn_mask, num_heads)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            f"neurokern.{_NAME}: argument attn_mask is None, expected a mask with is_causal=True "
            "(torch.nn.Transformer.generate_square_subsequent_mask makes one)"
        )
    if not batched:
        same_key, same_value = key is query, value is key
        query = query.unsqueeze(0)
        key = query if same_key else key.unsqueeze(0)
        value = key if same_value else value.unsqueeze(0)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        residual = None if residual is None else residual.unsqueeze(0)
        batch_first = True
    q, k, v = _projected(
        query,
        key,
        value,
        embed_dim_to_check,
        num_heads,
        in_proj_bias,
        [q_proj_weight, k_proj_weight, v_proj_weight] if use_separate_proj_weight else in_proj_weight,
        batch_first,
    )
    k, v = _static("static_k", static_k, k), _static("static_v", static_v, v)
    keys = k.shape[2]
    k, v = _one_more(k, v, bias_k, bias_v, static_k is not None or static_v is not None)
    if add_zero_attn:
        k, v = torch.nn.functional.pad(k, (0, 0, 0, 1)), torch.nn.functional.pad(v, (0, 0, 0, 1))
    seen = _seen(attn_mask, key_padding_mask, is_causal, q, keys, k.shape[2] - keys)

    dropout_p = dropout_p if training else 0.0
    weights = None
    if need_weights:
        record(_NAME, q.device.type, "matmul, softmax", reason="need_weights: no fused kernel keeps the weights")
        hidden = _hidden(seen, q, k)
        weights = _weights(q, k, seen.bias, hidden)
    if weights is not None and dropout_p > 0:
        weights = torch.nn.functional.dropout(weights, dropout_p)
        y = matmul(weights, _without_hidden(v, hidden))
    else:
        y = attention(q, k, v, mask=seen.mask, bias=seen.bias, is_causal=seen.is_causal, dropout_p=dropout_p)
    y = y.transpose(1, 2).flatten(2)
    y = linear(y if batch_first else y.transpose(0, 1), out_proj_weight, out_proj_bias, residual=residual)
    if weights is not None:
        weights = weights.mean(dim=1) if average_attn_weights else weights
        weights = weights if batched else weights.squeeze(0)
    return (y if batched else y.squeeze(0)), weights


def _by_torch(
    batch_first: bool, residual: Tensor | None, query: Tensor, key: Tensor, value: Tensor, **parameters: object
) -> tuple:
    turned = batch_first and query.dim() == 3
    if turned:
        query, key, value = (t.transpose(0, 1) for t in (query, key, value))
    y, weights = torch.nn.functional.multi_head_attention_forward(query, key, value, **parameters)
    y = y.transpose(0, 1) if turned else y
    return (y if residual is None else residual + y), weights


# ---- what is given ----


def _refuse(name: str, given: object, expected: str, error: type[Exception] = AssertionError) -> None:
    raise error(f"neurokern.{_NAME}: argument {name} {given}, expected {expected}")


def _has_shape(t: Tensor) -> str:
    return f"has shape {list(t.shape)}"


def _check_shapes(
    query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, mask: Tensor | None, num_heads: int
) -> bool:
    """Whether there is a batch."""
    if query.dim() not in (2, 3):
        _refuse("query", _has_shape(query), "2 dimensions, or 3 with a batch")
    for name, t in (("key", key), ("value", value)):
        if t.dim() != query.dim():
            _refuse(name, _has_shape(t), f"{query.dim()} dimensions as query")
    if padding is not None and padding.dim() != query.dim() - 1:
        _refuse("key_padding_mask", _has_shape(padding), f"{query.dim() - 1} dimensions")
    if mask is not None and mask.dim() not in (2, 3):
        _refuse("attn_mask", _has_shape(mask), "2 or 3 dimensions")
    if mask is not None and mask.dim() == 3 and query.dim() == 2:
        expected = (num_heads, query.shape[0], key.shape[0])
        if mask.shape != expected:
            _refuse("attn_mask", _has_shape(mask), str(list(expected)))
    for name, t in (("key_padding_mask", padding), ("attn_mask", mask)):
        if t is not None and t.dtype != torch.bool and not t.is_floating_point():
            _refuse(name, f"is {t.dtype}", "torch.bool or a floating dtype")
    return query.dim() == 3


# ---- projections ----


def _projected(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    bias: Tensor | None,
    weights: Tensor | list[Tensor | None] | None,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as [N, H, length, E / H]."""
    if query.shape[-1] != embed_dim:
        _refuse("query", _has_shape(query), f"{embed_dim} features")
    if embed_dim % num_heads:
        _refuse("num_heads", f"is {num_heads}", f"a divisor of the {embed_dim} features of query")

    def heads(t: Tensor) -> Tensor:
        t = t.unflatten(-1, (num_heads, -1))
        return t.transpose(1, 2) if batch_first else t.permute(1, 2, 0, 3)

    def several(t: Tensor, count: int, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
        # unbind, for the gradient of that is one copy
        made = linear(t, weight, bias).unflatten(-1, (count, embed_dim)).unbind(-2)
        return [heads(p) for p in made]

    if isinstance(weights, list):
        if key.shape[:2] != value.shape[:2]:
            _refuse("value", _has_shape(value), f"{list(key.shape[:2])} as key before the features")
        for name, weight in zip("qkv", weights, strict=True):
            if weight is None:
                _refuse(f"{name}_proj_weight", "is None", "a tensor with use_separate_proj_weight=True")
        biases = (None, None, None) if bias is None else bias.chunk(3)
        made = zip((query, key, value), weights, biases, strict=True)
        return tuple(heads(linear(t, weight, b)) for t, weight, b in made)
    if key.shape != value.shape:
        _refuse("value", _has_shape(value), f"{list(key.shape)} as key")
    if weights is None:
        _refuse("in_proj_weight", "is None", "a tensor with use_separate_proj_weight=False")
    if query is key and key is value:
        return tuple(several(query, 3, weights, bias))
    if key is value:
        weight, more = weights.split([embed_dim, 2 * embed_dim])
        b, b_more = (None, None) if bias is None else bias.split([embed_dim, 2 * embed_dim])
        return heads(linear(query, weight, b)), *several(key, 2, more, b_more)
    biases = (None, None, None) if bias is None else bias.chunk(3)
    made = zip((query, key, value), weights.chunk(3), biases, strict=True)
    return tuple(heads(linear(t, weight, b)) for t, weight, b in made)


def _static(name: str, given: Tensor | None, projected: Tensor) -> Tensor:
    if given is None:
        return projected
    batch, heads, _, size = projected.shape
    if given.dim() != 3 or given.shape[0] != batch * heads or given.shape[2] != size:
        _refuse(name, _has_shape(given), f"[{batch * heads}, any, {size}]")
    return given.unflatten(0, (batch, heads))


def _one_more(
    k: Tensor, v: Tensor, bias_k: Tensor | None, bias_v: Tensor | None, static: bool
) -> tuple[Tensor, Tensor]:
    """With bias_k and bias_v behind the keys and values of each batch."""
    if bias_k is None and bias_v is None:
        return k, v
    if bias_k is None or bias_v is None:
        missing, given = ("bias_k", "bias_v") if bias_k is None else ("bias_v", "bias_k")
        _refuse(missing, "is None", f"a tensor with {given}")
    if static:
        _refuse("bias_k", "is a tensor", "None with static_k or static_v")

    def behind(t: Tensor, bias: Tensor) -> Tensor:
        bias = bias.to(t.dtype).view(1, k.shape[1], 1, -1)  # t is of autocast's dtype
        return torch.cat([t, bias.expand(k.shape[0], -1, -1, -1)], dim=2)

    return behind(k, bias_k), behind(v, bias_v)


# ---- masks ----


class _Seen(NamedTuple):
    """Which keys a query sees, both broadcast to [N, H, L, S]: where the mask is True; the bias is added to scores."""

    mask: Tensor | None
    bias: Tensor | None
    is_causal: bool


def _seen(attn_mask: Tensor | None, padding: Tensor | None, is_causal: bool, q: Tensor, keys: int, more: int) -> _Seen:
    """Of both masks; the `more` keys behind the others are seen by every query."""
    batch, heads, queries, _ = q.shape
    if attn_mask is not None:
        expected = (queries, keys) if attn_mask.dim() == 2 else (batch * heads, queries, keys)
        if attn_mask.shape != expected:
            _refuse("attn_mask", _has_shape(attn_mask), str(list(expected)), RuntimeError)
        attn_mask = attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (batch, heads))
    if padding is not None:
        if padding.shape != (batch, keys):
            _refuse("key_padding_mask", _has_shape(padding), str([batch, keys]))
        padding = padding.view(batch, 1, 1, keys)
    hidden = bias = None
    for given in (attn_mask, padding):
        if given is None:
            continue
        if more:
            given = torch.nn.functional.pad(given, (0, more))
        if given.dtype == torch.bool:
            hidden = given if hidden is None else hidden | given
            continue
        if given.shape[-2] == 1:  # few numbers: what is hidden by -inf counts nothing, even a NaN
            none = given == float("-inf")
            hidden = none if hidden is None else hidden | none
            given = given.masked_fill(none, 0)
        given = given.to(q.dtype)
        bias = given if bias is None else bias + given
    mask = None if hidden is None else hidden.logical_not()
    if is_causal and more:  # causal among the keys that were given
        causal = torch.nn.functional.pad(_causal(queries, keys, q.device), (0, more), value=True)
        mask, is_causal = causal if mask is None else mask & causal, False
    return _Seen(mask, bias, is_causal)


def _causal(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()


def _hidden(seen: _Seen, q: Tensor, k: Tensor) -> Tensor | None:
    """Which keys a query does not see, for any reason."""
    hidden = None if seen.mask is None else seen.mask.logical_not()
    if seen.bias is not None:
        none = seen.bias == float("-inf")
        hidden = none if hidden is None else hidden | none
    if seen.is_causal:
        later = _causal(q.shape[2], k.shape[2], q.device).logical_not()
        hidden = later if hidden is None else hidden | later
    return hidden


def _without_hidden(t: Tensor, hidden: Tensor | None) -> Tensor:
    """Zeros for keys or values that no query sees: a NaN there would stay one when it is multiplied by 0."""
    return t if hidden is None else t.masked_fill(hidden.all(-2).unsqueeze(-1), 0)


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, hidden: Tensor | None) -> Tensor:
    """The softmax of the scores [N, H, L, S], 0 where nothing is seen."""
    k = _without_hidden(k, hidden)
    scores = _matmul(q, k.transpose(-2, -1), None, "matmul", 1 / math.sqrt(q.shape[-1]), 1.0)
    if bias is not None:
        scores = scores + bias
    if hidden is None:
        return softmax(scores, -1)
    # a row of -inf alone has no softmax: it gets one of zeros, and zeros for weights behind it
    some = hidden.all(-1, keepdim=True).logical_not()
    scores = scores.masked_fill(hidden, 0).masked_fill(hidden & some, float("-inf"))
    return softmax(scores, -1).masked_fill(hidden, 0)
