"""Launches, one of each kind of kernel: small for compute-sanitizer, of a benchmark's size for ncu."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ... import functional as F
from ...ops.convolution import convolution
from ...testing import rehearsal
from ..console import say

Make = Callable[..., torch.Tensor]
Call = Callable[[], object]


def calls(large: bool, place: str) -> dict[str, Call]:
    """Name and call of each; those that ncu looks at come first."""

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, device=place).to(dtype)

    n, rows = (4096, 4096) if large else (192, 7)  # of the kernels for tensor cores, too
    bf16, f16 = torch.bfloat16, torch.float16
    a, b, w = make(n, n, dtype=bf16), make(n, n, dtype=bf16), make(n)
    bias = make(n, dtype=bf16)
    h, one = make(n, n, dtype=f16), make(1, n, dtype=bf16)
    x, y = make(n, n), make(rows, n)
    leaf = make(rows, n).requires_grad_()
    g = make(rows, n)
    q, kv = (make(1, 4, 2048 if large else 70, 128, dtype=bf16).requires_grad_() for _ in range(2))
    attended = F.scaled_dot_product_attention(q, kv, kv, is_causal=True)
    g_attended = torch.ones_like(attended)
    images = make(32, 64, 56, 56, dtype=bf16) if large else make(1, 16, 9, 9, dtype=bf16)
    images = images.to(memory_format=torch.channels_last).requires_grad_()
    filters = make(images.size(1), images.size(1), 3, 3, dtype=bf16).to(memory_format=torch.channels_last)
    filters.requires_grad_()
    window = ("conv2d", [1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros")
    convolved = convolution(images, filters, None, *window)
    g_convolved = torch.ones_like(convolved)
    normed, activated = F.layer_norm(leaf, (n,), w, w), F.gelu(leaf)
    return {
        "matmul bf16": lambda: F.matmul(a, b),
        "linear bf16, one row": lambda: F.linear(one, a),
        "linear + gelu bf16": lambda: F.linear(a, b, bias, activation="gelu"),
        "attention bf16": lambda: F.scaled_dot_product_attention(q, kv, kv, is_causal=True),
        "attention bf16 backward": lambda: torch.autograd.grad(attended, (q, kv), g_attended, retain_graph=True),
        "attention bf16, one token": lambda: F.scaled_dot_product_attention(q[:, :, :1], kv, kv),
        "convolution bf16": lambda: convolution(images, filters, None, *window),
        "convolution bf16 backward": lambda: torch.autograd.grad(
            convolved, (images, filters), g_convolved, retain_graph=True
        ),
        "matmul f32": lambda: F.matmul(x, x),
        "gelu": lambda: F.gelu(y),
        "gelu backward": lambda: torch.autograd.grad(activated, leaf, g, retain_graph=True),
        "softmax": lambda: F.softmax(y, -1),
        "layer_norm": lambda: F.layer_norm(y, (n,), w, w),
        "layer_norm backward": lambda: torch.autograd.grad(normed, leaf, g, retain_graph=True),
        "swiglu": lambda: F.swiglu(y[:, : n // 2 * 2]),
        "matmul f16": lambda: F.matmul(h, h),
        "softmax over columns": lambda: F.softmax(y, 0),
    }


def run(large: bool) -> int:
    """Each once; if large, between cudaProfilerStart and Stop, after a first call that loads its module."""
    place, failed = rehearsal.place("cuda"), 0
    profiled = large and place == "cuda"
    with rehearsal.in_force("cuda"):
        for name, call in calls(large and place == "cuda", place).items():
            try:
                if profiled:
                    call()
                    torch.cuda.synchronize()
                    torch.cuda.cudart().cudaProfilerStart()
                call()
                if place == "cuda":
                    torch.cuda.synchronize()
                if profiled:
                    torch.cuda.cudart().cudaProfilerStop()
                say(f"{name}: launched")
            except Exception as error:
                failed += 1
                say(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
    return int(failed > 0)
