"""Attention beside each of torch's own kernels, as FlashAttention's papers measure: 16,384 tokens of width 2,048."""

from __future__ import annotations

from functools import partial
from typing import Any

import neurokern.functional as F
import torch
from neurokern.bench.cases import Case
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

T = torch.nn.functional
TOKENS, WIDTH = {"cuda": 16384, "cpu": 1024}, {"cuda": 2048, "cpu": 256}
LENGTHS = {"cuda": (1024, 4096, 16384), "cpu": (256, 1024)}
BACKENDS = {
    "cuda": {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    },
    "cpu": {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH},
}


def _ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _theirs(backend: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.dtype == torch.float64:  # the reference, which not every backend has
        return T.scaled_dot_product_attention(q, k, v, is_causal=True)
    with sdpa_kernel(backend):
        return T.scaled_dot_product_attention(q, k, v, is_causal=True)


def backends(device: str, quick: bool) -> list[Case]:
    """Causal, heads of 64 and 128, bf16, forward and with the gradients."""
    cases = []
    for size in (128, 64):
        for length in LENGTHS[device][:: 2 if quick else 1]:
            shape = (TOKENS[device] // length, WIDTH[device] // size, length, size)
            flops = 4.0 * TOKENS[device] * WIDTH[device] * length / 2
            for grad in (False, True):
                for name, backend in BACKENDS[device].items():
                    pair = _ours, partial(_theirs, backend)
                    label = f"{shape[0]} x {shape[1]} x {length} x {size} causal, beside {name}"
                    case = Case("scaled_dot_product_attention", label, "bf16", *pair, (shape,) * 3, (1.0,) * 3, flops,
                                grad=grad, reduces=True, together=3)  # fmt: skip
                    cases.append(case)
    return cases
