"""Suites of the matrix products."""

from __future__ import annotations

from functools import partial

import torch
from neurokern import functional as F
from neurokern.bench.cases import Case

T = torch.nn.functional

TOKENS = (1, 16, 197, 1024)

# (N, K) of every linear layer, attention projections and embeddings included; `y = x @ W.T` with W [N, K]
PROJECTIONS = {
    (768, 768): "BERT-base q, k, v, out and pooler; GPT-2 and ViT-B attention out; ViT-B patches",
    (2304, 768): "GPT-2 and ViT-B q, k, v at once",
    (3072, 768): "BERT-base, GPT-2 and ViT-B MLP in",
    (768, 3072): "BERT-base, GPT-2 and ViT-B MLP out",
    (50257, 768): "GPT-2 vocabulary",
    (30522, 768): "BERT-base vocabulary",
    (1000, 768): "ViT-B classes",
}
# (M, N, K) of the networks of `neurokern demo`
DEMO = ((64, 1, 30), (64, 256, 64), (64, 256, 256), (64, 10, 256))
PRIMES = (
    (7, 11, 13),
    (31, 37, 41),
    (127, 131, 137),
    (61, 769, 773),
    (251, 257, 263),
    (509, 521, 523),
    (1021, 1031, 1033),
)
SQUARES = (64, 128, 256, 512, 1024, 2048)
GPU_SQUARES = (1024, 2048, 4096, 8192)
GPU_TOKENS = (1, 16, 197, 1024, 8192)


def _square(n: int, dtype: str) -> Case:
    return Case(
        "matmul", f"{n} x {n} x {n}", dtype, F.matmul, torch.matmul, ((n, n), (n, n)), (1.0, n**-0.5),
        flops=2.0 * n**3, reduces=True,
    )  # fmt: skip


def _matmul(m: int, n: int, k: int, dtype: str) -> Case:
    return Case(
        "matmul", f"{m} x {n} x {k}", dtype, F.matmul, torch.matmul, ((m, k), (k, n)), (1.0, k**-0.5),
        flops=2.0 * m * n * k, reduces=True,
    )  # fmt: skip


def _linear(m: int, n: int, k: int, dtype: str) -> Case:
    return Case(
        "linear", f"{m} x {n} x {k}", dtype, F.linear, T.linear, ((m, k), (n, k), (n,)), (1.0, k**-0.5, 1.0),
        flops=2.0 * m * n * k, reduces=True,
    )  # fmt: skip


def products(dtype: str, device: str, quick: bool) -> list[Case]:
    """Squares, every projection at every number of tokens, the demo's layers, odd sizes; labels are M x N x K."""
    gpu = device == "cuda"
    squares, tokens = (GPU_SQUARES, GPU_TOKENS) if gpu else (SQUARES, TOKENS)
    projections, primes = list(PROJECTIONS), PRIMES
    if quick:
        squares, tokens, primes = squares[1::2], tokens[1::2], PRIMES[1::2]
        projections = [p for p in projections if p[0] <= 3072]
        if dtype == "f16" and not gpu:
            squares, tokens = (128, 512), (16, 197)
    cases = [_square(n, dtype) for n in squares]
    cases += [_linear(m, n, k, dtype) for n, k in projections for m in tokens]
    cases += [_linear(m, n, k, dtype) for m, n, k in DEMO]
    cases += [make(m, n, k, dtype) for m, n, k in primes for make in (_matmul, _linear)]
    return cases


def few_rows(device: str, quick: bool) -> list[Case]:
    """What decoding one token, or a few, does: the weights stream through."""
    rows = (1, 4, 16) if quick else (1, 2, 3, 4, 5, 8, 11, 16)
    weights = ((768, 768), (3072, 768), (768, 3072), (2304, 768), (4096, 4096))
    return [
        _linear(m, n, k, dtype)
        for dtype in ("f32", "bf16")
        for n, k in (weights[1:3] if quick else weights)
        for m in rows
    ]


def _unfused(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return T.gelu(T.linear(x, w, b))


def fused(device: str, quick: bool) -> list[Case]:
    """Linear with GELU in its epilogue against torch's two ops, without and with the gradients of all three."""
    ours = partial(F.linear, activation="gelu")
    shapes = [(m, 3072, 768) for m in (GPU_TOKENS if device == "cuda" else TOKENS)]
    shapes += [(197, 768, 768), (64, 256, 64), (64, 256, 256), (127, 131, 137)]
    return [
        Case(
            "linear+gelu",
            f"{m} x {n} x {k}",
            dtype,
            ours,
            _unfused,
            ((m, k), (n, k), (n,)),
            (1.0, k**-0.5, 1.0),
            flops=2.0 * m * n * k,
            grad=grad,
            reduces=True,
        )
        for grad in (False, True)
        for dtype in ("f32", "bf16")
        for m, n, k in (shapes[1:7:2] if quick else shapes)
    ]


def tiny(device: str, quick: bool) -> list[Case]:
    """What a call of each product costs before its kernel does anything: matrices of 8 x 8, without a gradient."""
    m, v, b = (8, 8), (8,), (2, 8, 8)
    calls = (
        ("linear", F.linear, T.linear, "8 x 8 x 8", (m, m, v)),
        ("matmul", F.matmul, torch.matmul, "8 x 8 x 8", (m, m)),
        ("matmul", F.matmul, torch.matmul, "8 x 8 and 8", (m, v)),
        ("matmul", F.matmul, torch.matmul, "2 x 8 x 8 and 8 x 8", (b, m)),
        ("mm", F.mm, torch.mm, "8 x 8 x 8", (m, m)),
        ("bmm", F.bmm, torch.bmm, "2 x 8 x 8 x 8", (b, b)),
        ("addmm", F.addmm, torch.addmm, "8 x 8 x 8", (v, m, m)),
    )
    return [
        Case(op, label, "f32", ours, theirs, shapes, (1.0,) * len(shapes), reduces=True)
        for op, ours, theirs, label, shapes in calls
    ]
