"""torch.nn's transformers of our layers: attention, norms, and linear layers with their activation fused."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial, wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.modules.transformer import _detect_is_causal_mask, _get_seq_len

from .. import functional as F
from ..functional.activation_name import Activation, name_of
from ..ops.activation import ACTIVATIONS
from . import activation as _activations
from .matmul import Linear
from .multi_head import MultiheadAttention
from .normalization import LayerNorm

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]

_FUNCTIONS = {getattr(home, name, None) for name in ACTIVATIONS for home in (torch, torch.nn.functional, F)} - {None}


def _set_class(module: Module | None, kind: type[Module]) -> None:
    """Make a layer that torch has just made one of ours: the same parameters, drawn in the same order."""
    if module is not None:
        module.__class__ = kind


def _set_layers(layer: Module) -> None:
    for name, kind in {
        "self_attn": MultiheadAttention,
        "multihead_attn": MultiheadAttention,
        "linear1": Linear,
        "linear2": Linear,
        "norm1": LayerNorm,
        "norm2": LayerNorm,
        "norm3": LayerNorm,
    }.items():
        _set_class(getattr(layer, name, None), kind)


def _name_of(activation: Any) -> Activation:
    """What a linear layer is told to fuse, or None: of a function or class of torch's or ours, which nobody watches."""
    given = activation.func if isinstance(activation, partial) else activation
    if isinstance(given, Module):
        kind = type(given)
        known = kind in (getattr(home, kind.__name__, None) for home in (torch.nn, _activations)) and _unwatched(given)
    else:
        known = isinstance(given, Hashable) and given in _FUNCTIONS
    return name_of(activation) if known else None


def _unwatched(module: Module) -> bool:
    """Whether nothing would notice that another function than its forward is called."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        _has_any_global_hook(),
    )
    return "forward" not in vars(module) and not any(hooks)


class _FeedForward:
    """What the layers of encoder and decoder share."""

    linear1: Module
    linear2: Module
    dropout: Module
    activation: Callable[[Tensor], Tensor]

    def _feed_forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        name = _name_of(self.activation)
        plain = type(self.linear1).forward is Linear.forward and _unwatched(self.linear1)
        if name is not None and plain:
            hidden = F.linear(x, self.linear1.weight, self.linear1.bias, activation=name)
        else:
            own = name is not None and not isinstance(self.activation, Module | partial)
            hidden = (getattr(F, self.activation.__name__) if own else self.activation)(self.linear1(x))
        hidden = self.dropout(hidden)
        if residual is None:
            return self.linear2(hidden)
        return F.linear(hidden, self.linear2.weight, self.linear2.bias, residual=residual)

    def _adds(self, block: str, dropout: Module, last: Module, forward: Callable[..., Tensor], x: Tensor) -> bool:
        """Whether the last layer of a block can add x: it is ours, and nobody sees what it returns before the sum."""
        return (
            getattr(type(self), block) in _BLOCKS
            and block not in vars(self)
            and type(last).forward is forward
            and _unwatched(last)
            and (dropout.p == 0 or not dropout.training)
            and type(dropout) is torch.nn.Dropout
            and _unwatched(dropout)
            and not torch.is_autocast_enabled(x.device.type)  # there the sum would be of its dtype
        )

    def _plus_attention(
        self,
        x: Tensor,
        query: Tensor,
        memory: Tensor | None,
        mask: Tensor | None,
        padding: Tensor | None,
        is_causal: bool,
    ) -> Tensor:
        """x + attention of query to memory, or to itself."""
        name, attention, dropout = "_sa_block", self.self_attn, self.dropout1
        if memory is not None:
            name, attention, dropout = "_mha_block", self.multihead_attn, self.dropout2
        if self._adds(name, dropout, attention, MultiheadAttention.forward, x):
            key = query if memory is None else memory
            masks = {"key_padding_mask": padding, "attn_mask": mask, "is_causal": is_causal}
            return attention(query, key, key, need_weights=False, residual=x, **masks)[0]
        given = (query,) if memory is None else (query, memory)
        return x.add(getattr(self, name)(*given, mask, padding, is_causal))

    def _plus_feed_forward(self, x: Tensor, y: Tensor, dropout: Module) -> Tensor:
        """x + the perceptron of y."""
        if self._adds("_ff_block", dropout, self.linear2, Linear.forward, x):
            return self._feed_forward(y, x)
        return x.add(self._ff_block(y))


class TransformerEncoderLayer(_FeedForward, torch.nn.TransformerEncoderLayer):
    """torch.nn.TransformerEncoderLayer of our layers, which it calls in evaluation as in training."""

    @wraps(torch.nn.TransformerEncoderLayer.__init__)
    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        _set_layers(self)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        if src.is_nested:
            return self._nested(src)
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = self._plus_attention(src, self.norm1(src), None, *masks)
            return self._plus_feed_forward(x, self.norm2(x), self.dropout2)
        x = self.norm1(self._plus_attention(src, src, None, *masks))
        return self.norm2(self._plus_feed_forward(x, x, self.dropout2))

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout2(self._feed_forward(x))

    def _nested(self, src: Tensor) -> Tensor:
        # TransformerEncoder leaves padding out for torch's fused path, which alone takes that: padded again here
        lengths = torch.tensor([t.shape[0] for t in src.unbind()], device=src.device)
        padded = src.to_padded_tensor(0.0)
        padding = torch.arange(padded.shape[1], device=src.device).expand(padded.shape[:2]).ge(lengths.unsqueeze(1))
        y = self.forward(padded, src_key_padding_mask=padding)
        return torch._nested_tensor_from_mask(y, padding.logical_not(), mask_check=False)


class TransformerDecoderLayer(_FeedForward, torch.nn.TransformerDecoderLayer):
    """torch.nn.TransformerDecoderLayer of our layers."""

    @wraps(torch.nn.TransformerDecoderLayer.__init__)
    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        _set_layers(self)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        own = (None, tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        others = (memory, memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            x = self._plus_attention(tgt, self.norm1(tgt), *own)
            x = self._plus_attention(x, self.norm2(x), *others)
            return self._plus_feed_forward(x, self.norm3(x), self.dropout3)
        x = self.norm1(self._plus_attention(tgt, tgt, *own))
        x = self.norm2(self._plus_attention(x, x, *others))
        return self.norm3(self._plus_feed_forward(x, x, self.dropout3))

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout3(self._feed_forward(x))


# the blocks that end in a layer which can add what they are added to
_BLOCKS = {
    torch.nn.TransformerEncoderLayer._sa_block,
    TransformerEncoderLayer._ff_block,
    torch.nn.TransformerDecoderLayer._sa_block,
    torch.nn.TransformerDecoderLayer._mha_block,
    TransformerDecoderLayer._ff_block,
}


class TransformerEncoder(torch.nn.TransformerEncoder):
    """torch.nn.TransformerEncoder without nested tensors, where its layers are ours; layers and norm are as given."""

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        if src.is_nested or not all(isinstance(layer, TransformerEncoderLayer) for layer in self.layers):
            return super().forward(src, mask, src_key_padding_mask, is_causal)
        batch_first = self.layers[0].self_attn.batch_first
        causal = _detect_is_causal_mask(mask, is_causal, _get_seq_len(src, batch_first))
        x = src
        for layer in self.layers:
            x = layer(x, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=causal)
        if mask is None and src_key_padding_mask is not None and self._leaves_padding_out(src, src_key_padding_mask):
            padding = src_key_padding_mask if src_key_padding_mask.dtype == torch.bool else src_key_padding_mask != 0
            x = x.masked_fill(padding.unsqueeze(-1), 0)
        return x if self.norm is None else self.norm(x)

    def _leaves_padding_out(self, src: Tensor, padding: Tensor) -> bool:
        """Whether torch would make a nested tensor for its fused path: the output has zeros in the place of padding."""
        layer, checked = self.layers[0], getattr(self, "mask_check", True)
        if layer.training or src.dim() != 3 or not getattr(self, "use_nested_tensor", False):
            return False
        if not torch.backends.mha.get_fastpath_enabled() or torch.is_autocast_enabled():
            return False
        if torch.is_grad_enabled() and any(t.requires_grad for t in (src, *layer.parameters())):
            return False
        if not checked:
            return True
        return not torch.compiler.is_compiling() and torch._nested_tensor_from_mask_left_aligned(
            src, padding.logical_not()
        )


class TransformerDecoder(torch.nn.TransformerDecoder):
    """torch.nn.TransformerDecoder: layers and norm are those it is given."""


class Transformer(torch.nn.Transformer):
    """torch.nn.Transformer of our layers; a custom encoder or decoder stays as it is given."""

    @wraps(torch.nn.Transformer.__init__)
    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        given = signature(torch.nn.Transformer.__init__).bind(self, *args, **keywords).arguments
        if given.get("custom_encoder") is None:
            _set_stack(self.encoder, TransformerEncoder, TransformerEncoderLayer)
        if given.get("custom_decoder") is None:
            _set_stack(self.decoder, TransformerDecoder, TransformerDecoderLayer)


def _set_stack(stack: Module, kind: type[Module], kind_of_layers: type[Module]) -> None:
    _set_class(stack, kind)
    _set_class(stack.norm, LayerNorm)
    for layer in stack.layers:
        _set_class(layer, kind_of_layers)
        _set_layers(layer)
