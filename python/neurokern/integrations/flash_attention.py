"""Our attention as a flash attention implementation of torch, for unchanged calls of its scaled_dot_product_attention.

    from neurokern.integrations import flash_attention

    flash_attention.register()
    torch.nn.attention.activate_flash_attention_impl("neurokern")
    ...
    torch.nn.attention.restore_flash_attention_impl()

torch asks it where it would have run its own flash attention: four dimensions, no gradient of the mask; on the CPU also
no dropout, on CUDA also no mask.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.library import Library

from ..ops.attention import Rules, drawn_seed
from .hook import Hook

__all__ = ["register"]

_OURS = torch.ops.neurokern


class _Active:
    """What torch's registry holds while ours is active."""

    def __init__(self) -> None:
        self._library: Library | None = Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")  # which is the purpose
            for device, kernels in _KERNELS.items():
                for name, kernel in kernels.items():
                    self._library.impl(name, kernel, device)

    def remove(self) -> None:
        if self._library is not None:
            self._library._destroy()  # now, and not once nobody refers to it
        self._library = None


def register(name: str = "neurokern") -> Hook:
    """Let ``torch.nn.attention.activate_flash_attention_impl(name)`` activate our attention, on the CPU and on CUDA.

    Returns:
        The hook; `Hook.remove` also restores torch's own implementation, if ours is active then.

    Raises:
        ImportError: torch has no such registry.
        ValueError: name is taken.
    """
    try:
        from torch.nn.attention import _registry
    except ImportError as error:
        raise ImportError(
            f"neurokern.integrations.flash_attention.register: torch {torch.__version__} has no registry of flash "
            "attention implementations, expected a later version"
        ) from error
    if name in _registry.list_flash_attention_impls():
        raise ValueError(
            f"neurokern.integrations.flash_attention.register: argument name is {name!r}, which is registered already"
        )
    _registry.register_flash_attention_impl(name, register_fn=_Active)

    def undo() -> None:
        if _registry.current_flash_attention_impl() == name:
            _registry.restore_flash_attention_impl()
        _registry._FLASH_ATTENTION_IMPLS.pop(name, None)

    return Hook(undo)


# ---- what torch's dispatcher calls, below autograd ----


def _rules(query: Tensor, key: Tensor, is_causal: bool) -> list[int]:
    return [int(r) for r in Rules(right=0 if is_causal else -1, groups=query.shape[1] != key.shape[1])]


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    mask, bias = _split(attn_mask)
    y, lse = _OURS.attention_with_lse(
        query,
        key,
        value,
        mask,
        bias,
        None,
        None,
        None,
        None,
        seed,
        scale,
        0.0,
        dropout_p,
        _rules(query, key, is_causal),
    )
    like = torch.empty_like(query)  # compiled code relies on the strides that torch promises
    return (y if y.stride() == like.stride() or y.shape != like.shape else like.copy_(y)), lse


def _backward(
    g: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    y: Tensor,
    lse: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    mask, bias = _split(attn_mask)
    given = (query, key, value, mask, bias, None, None, None, None, seed)
    wants = [i < 3 for i in range(len(given))]
    made = _OURS.attention_backward(g, *given, y, lse, scale, 0.0, dropout_p, _rules(query, key, is_causal), wants)
    return made[0], made[1], made[2]


def _split(attn_mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if attn_mask is None or attn_mask.dtype == torch.bool:
        return attn_mask, None
    return None, attn_mask


def _cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    y, lse = _forward(query, key, value, dropout_p, is_causal, attn_mask, scale)
    return y, lse.transpose(1, 2).contiguous().transpose(1, 2)


def _cpu_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _backward(grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, attn_mask, scale)


def _cuda(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, None, None, int, int, Tensor, Tensor, Tensor]:
    if return_debug_mask:
        raise RuntimeError("neurokern.attention: argument return_debug_mask is True, expected False")
    seed = drawn_seed(query, dropout_p)
    y, lse = _forward(query, key, value, dropout_p, is_causal, None, scale, seed)
    state = torch.zeros(2, dtype=torch.int64, device=query.device) if seed is None else seed
    nothing = query.new_empty(0)
    return y, lse, None, None, query.shape[2], key.shape[2], state, nothing, nothing


def _cuda_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    philox_seed: Tensor,
    philox_offset: Tensor,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    seed = philox_seed if dropout_p else None
    return _backward(grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, None, scale, seed)


_KERNELS = {
    "CPU": {
        "_scaled_dot_product_flash_attention_for_cpu": _cpu,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _cpu_backward,
    },
    "CUDA": {
        "_scaled_dot_product_flash_attention": _cuda,
        "_scaled_dot_product_flash_attention_backward": _cuda_backward,
    },
}
