"""torch.nn.MultiheadAttention on our kernels. (`neurokern.nn.attention` is torch.nn.attention.)"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import functional as F
from ..backends.fall_back import to_torch

__all__ = ["MultiheadAttention"]


class MultiheadAttention(torch.nn.MultiheadAttention):
    """torch.nn.MultiheadAttention on our kernels, in evaluation as in training: see `multi_head_attention_forward`.

    Nested tensors go to torch. ``residual``, of the shape of query, is added to the output in the same pass.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        residual: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        if getattr(query, "is_nested", False):
            theirs = super().forward
            y, weights = to_torch(
                "MultiheadAttention",
                "nested tensors have no kernel",
                lambda: theirs(
                    query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
                ),
            )
            return (y if residual is None else residual.add(y)), weights
        return F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            batch_first=self.batch_first,
            residual=residual,
        )
