"""Our attention as an ``attn_implementation`` of transformers, for every model that asks its AttentionInterface.

from neurokern.integrations import hugging_face

hugging_face.register()
model = transformers.AutoModel.from_config(config, attn_implementation="neurokern")
model.set_attn_implementation("neurokern")  # or for a model that is there
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..functional.attention import attention
from .hook import Hook

__all__ = ["attention_forward", "register"]


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for the attention of a layer.

    Args:
        module: the layer; ``module.is_causal`` is read where is_causal is None.
        query: [N, H, L, D].
        key, value: [N, H / groups, S, D].
        attention_mask: broadcasts to [N, H, L, S]: True where a query sees a key, or floats to add to the scores.
            None: the layer's own rule, causal or not.
        dropout: probability of leaving out a weight.
        scaling: of the scores; None: 1 / sqrt(D).
        is_causal: whether query i sees keys 0 .. i alone, if there is no mask and more than one query.
        position_bias: broadcasts to [N, H, L, S], added to the scores.
        softcap: scores become softcap * tanh(scores / softcap).
        s_aux: [H], a logit that counts in the softmax's sum alone.
        ignored: what is in the mask already, as the window, or of no use here.

    Returns:
        [N, L, H, D] and None: no weights, which "eager" alone returns.
    """
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    mask, bias = attention_mask, position_bias
    if mask is not None and mask.dtype != torch.bool:
        mask, bias = None, mask if bias is None else bias + mask
    y = attention(
        query,
        key,
        value,
        is_causal=bool(is_causal) and attention_mask is None and query.shape[2] > 1,
        mask=mask,
        bias=bias,
        sink=s_aux,
        softcap=softcap or 0.0,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return y.transpose(1, 2).contiguous(), None


def register(name: str = "neurokern") -> Hook:
    """Let transformers' models take ``attn_implementation=name``, until the hook that is returned is removed.

    Both of transformers' registries get an entry: without one for masks, a model passes no mask at all.

    Raises:
        ImportError: transformers is not installed, or has no such registries (before 4.53).
        ValueError: name is "eager", which transformers does not look up.
    """
    if name == "eager":
        raise ValueError("neurokern.integrations.hugging_face.register: argument name is 'eager', expected another")
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    return Hook(
        _entered(AttentionInterface, name, attention_forward), _entered(AttentionMaskInterface, name, sdpa_mask)
    )


def _entered(registry: Any, name: str, function: Callable[..., Any]) -> Callable[[], Any]:
    entries = registry._global_mapping  # `register` has no counterpart
    before = entries.get(name)
    registry.register(name, function)
    return lambda: entries.pop(name, None) if before is None else entries.update({name: before})
