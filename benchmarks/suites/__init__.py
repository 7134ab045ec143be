"""What is measured, and its target ratio to torch: lists of cases, installed as ``neurokern.bench.suites``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from neurokern.bench.cases import Case

from . import (
    activation,
    attention,
    attention_backends,
    convolution,
    large,
    matmul,
    normalization,
    pooling,
    rearrangement,
    resampling,
    softmax,
)


@dataclass(frozen=True)
class Bound:
    """How many times faster than torch: the geometric mean of a suite, and every single case."""

    mean: float
    worst: float


@dataclass(frozen=True)
class Suite:
    """A list of cases and its targets on the CPU (there are none on a GPU)."""

    name: str
    title: str
    family: str
    bound: Bound
    cases: Callable[[str, bool], list[Case]]  # of the device and whether it is to be quick


def _tiny(device: str, quick: bool) -> list[Case]:
    families = (activation, softmax, matmul, convolution)
    return [case for family in families for case in family.tiny(device, quick)]


SUITES = (
    Suite("matmul-f32", "linear and matmul, f32", "matmul", Bound(1.10, 0.95), partial(matmul.products, "f32")),
    Suite("matmul-bf16", "linear and matmul, bf16", "matmul", Bound(1.10, 0.90), partial(matmul.products, "bf16")),
    Suite("matmul-f16", "linear and matmul, f16", "matmul", Bound(15.0, 1.0), partial(matmul.products, "f16")),
    Suite("few-rows", "few rows (M 1 to 16), f32 and bf16", "matmul", Bound(1.5, 1.0), matmul.few_rows),
    Suite("linear-gelu", "linear + GELU fused", "matmul", Bound(1.25, 1.0), matmul.fused),
    Suite("activation", "activations, forward", "activation", Bound(2.5, 1.0), partial(activation.elementwise, False)),
    Suite(
        "activation-backward",
        "activations, forward + backward",
        "activation",
        Bound(2.0, 1.0),
        partial(activation.elementwise, True),
    ),
    Suite("softmax", "softmax family", "softmax", Bound(2.0, 1.0), softmax.softmaxes),
    Suite("normalization", "layer_norm and rms_norm", "normalization", Bound(1.5, 1.0), normalization.norms),
    Suite("pooling", "pooling, forward + backward", "pooling", Bound(1.5, 1.0), pooling.pools),
    Suite(
        "rearrangement",
        "padding, shuffles and windows, forward + backward",
        "rearrangement",
        Bound(1.5, 0.9),
        rearrangement.rearrangements,
    ),
    Suite(
        "resampling",
        "interpolation and samples at points, forward + backward",
        "resampling",
        Bound(1.5, 1.0),
        resampling.resampling,
    ),
    Suite("attention-f32", "attention, f32", "attention", Bound(1.4, 1.0), partial(attention.attention, "f32", False)),
    Suite(
        "attention-bf16", "attention, bf16", "attention", Bound(2.2, 1.0), partial(attention.attention, "bf16", False)
    ),
    Suite("attention-f16", "attention, f16", "attention", Bound(2.5, 1.0), partial(attention.attention, "f16", False)),
    Suite(
        "attention-f32-backward",
        "attention, f32, forward + backward",
        "attention",
        Bound(1.4, 1.0),
        partial(attention.attention, "f32", True),
    ),
    Suite(
        "attention-bf16-backward",
        "attention, bf16, forward + backward",
        "attention",
        Bound(2.0, 1.0),
        partial(attention.attention, "bf16", True),
    ),
    Suite("decode", "attention, 1 to 4 tokens, f32 and bf16", "attention", Bound(1.5, 1.0), attention.decode),
    Suite(
        "attention-backends",
        "attention, beside each of torch's kernels",
        "attention",
        Bound(1.2, 1.0),
        attention_backends.backends,
    ),
    Suite(
        "decode-paged",
        "attention to a cache, in pages or appended to",
        "attention",
        Bound(1.5, 1.0),
        attention.decode_cached,
    ),
    Suite("attention-masked", "attention with a window or a bias", "attention", Bound(2.0, 1.0), attention.masked),
    Suite(
        "convolution-f32",
        "convolutions, f32",
        "convolution",
        Bound(1.3, 0.95),
        partial(convolution.convolutions, "f32", False),
    ),
    Suite(
        "convolution-bf16",
        "convolutions, bf16",
        "convolution",
        Bound(1.2, 0.95),
        partial(convolution.convolutions, "bf16", False),
    ),
    Suite(
        "convolution-f16",
        "convolutions, f16",
        "convolution",
        Bound(8.0, 0.95),
        partial(convolution.convolutions, "f16", False),
    ),
    Suite(
        "convolution-f32-backward",
        "convolutions, f32, forward + backward",
        "convolution",
        Bound(1.4, 0.95),
        partial(convolution.convolutions, "f32", True),
    ),
    Suite(
        "convolution-bf16-backward",
        "convolutions, bf16, forward + backward",
        "convolution",
        Bound(1.3, 0.95),
        partial(convolution.convolutions, "bf16", True),
    ),
    Suite("convolution-relu", "convolution + bias + ReLU fused", "convolution", Bound(1.5, 1.0), convolution.fused),
    Suite("depthwise", "depthwise convolutions, f32 and bf16", "convolution", Bound(1.5, 1.0), convolution.depthwise),
    Suite("convolution-dilated", "dilated convolutions, bf16", "convolution", Bound(3.0, 1.0), convolution.dilated),
    Suite(
        "convolution-transposed",
        "transposed convolutions, f32 and bf16",
        "convolution",
        Bound(1.1, 0.9),
        convolution.transposed,
    ),
    Suite("large", "1 to 64 MiB, hot and cold", "activation", Bound(1.2, 0.9), large.hot_and_cold),
    Suite("tiny", "one op on 64 elements, no gradient", "activation", Bound(0.7, 0.5), _tiny),
)
