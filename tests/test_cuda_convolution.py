"""Convolutions by the CUDA kernels, on the emulator: the three products in every dtype, layout and padding mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import neurokern
import pytest
import torch
from neurokern.backends import emulation
from neurokern.ops import convolution as ops
from torch import Tensor

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))

DTYPES = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16}
EPS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SUMS = {torch.float32: 2.0**-20, torch.float64: 2.0**-49, torch.float16: 2.0**-20, torch.bfloat16: 2.0**-20}

# image, weight, stride, padding before and behind each dim, dilation, groups, mode
CASES: dict[str, tuple[Any, ...]] = {
    "3x3": ((2, 8, 9, 10), (24, 8, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "zeros"),
    "1x1": ((2, 16, 7, 7), (72, 16, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, "zeros"),
    "few channels": ((2, 3, 12, 11), (10, 3, 5, 4), (2, 2), (2, 2, 2, 1), (1, 1), 1, "zeros"),
    "stride": ((1, 16, 12, 11), (8, 16, 3, 2), (2, 3), (1, 1, 1, 0), (1, 1), 1, "zeros"),
    "1x1 of every second": ((2, 8, 9, 8), (16, 8, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1, "zeros"),
    "dilation": ((1, 24, 13, 13), (9, 24, 3, 3), (1, 1), (4, 4, 3, 3), (3, 2), 1, "zeros"),
    "stride and dilation": ((1, 8, 15, 14), (8, 8, 3, 3), (2, 3), (2, 0, 1, 2), (2, 3), 1, "zeros"),
    "groups": ((2, 24, 6, 7), (48, 8, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3, "zeros"),
    "odd groups": ((2, 15, 6, 7), (20, 3, 3, 3), (1, 2), (1, 1, 1, 1), (1, 1), 5, "zeros"),
    "depthwise": ((2, 16, 8, 9), (16, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 16, "zeros"),
    "depthwise stride": ((1, 10, 9, 9), (20, 1, 3, 5), (2, 1), (1, 1, 2, 2), (1, 1), 10, "zeros"),
    "reflect": ((1, 8, 6, 7), (16, 8, 3, 3), (1, 1), (2, 1, 3, 2), (1, 1), 1, "reflect"),
    "replicate": ((1, 8, 6, 7), (16, 4, 3, 3), (2, 1), (2, 1, 3, 8), (1, 2), 2, "replicate"),
    "circular": ((2, 5, 6, 5), (6, 5, 3, 3), (1, 2), (2, 6, 3, 5), (1, 1), 1, "circular"),
    "circular of one": ((2, 4, 1, 3), (6, 4, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "circular"),
    "window as large as the image": ((3, 8, 4, 4), (70, 8, 4, 4), (1, 1), (0, 0, 0, 0), (1, 1), 1, "zeros"),
    "no batch": ((8, 9, 10), (16, 8, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "zeros"),
    "1d": ((2, 16, 21), (24, 16, 5), (2,), (2, 1), (1,), 1, "zeros"),
    "3d": ((1, 8, 5, 6, 7), (16, 8, 2, 3, 3), (1, 2, 1), (1, 0, 1, 1, 1, 1), (1, 1, 2), 1, "zeros"),
    "long window": ((1, 8, 50), (8, 8, 40), (1,), (19, 20), (1,), 1, "zeros"),
}
TRANSPOSED: dict[str, tuple[Any, ...]] = {  # input, weight, stride, padding, output padding, dilation, groups
    "3x3": ((2, 8, 5, 6), (8, 16, 3, 3), (2, 2), (1, 1, 1, 1), (1, 0), (1, 1), 1),
    "groups": ((1, 16, 5, 6), (16, 5, 2, 3), (2, 3), (0, 1, 0, 0), (0, 2), (1, 1), 2),
    "few taps": ((1, 8, 4, 5), (8, 24, 2, 1), (3, 2), (0, 0, 0, 0), (2, 1), (1, 1), 1),
    "1d": ((2, 8, 9), (8, 16, 4), (2,), (1, 1), (0,), (1,), 1),
}
LAYOUTS = ["contiguous", "channels_last", "strided"]


def laid_out(x: Tensor, layout: str, dims: int) -> Tensor:
    if layout == "strided":  # every second number, the last dim first
        wide = x.new_full((*reversed(x.shape), 2), torch.nan)
        wide[..., 0] = x.permute(*reversed(range(x.dim())))
        return wide[..., 0].permute(*reversed(range(x.dim())))
    if layout == "channels_last" and dims > 1:
        order = torch.channels_last if dims == 2 else torch.channels_last_3d
        if x.dim() == dims + 2:
            return x.contiguous(memory_format=order)
        return x.unsqueeze(0).contiguous(memory_format=order).squeeze(0) if x.dim() == dims + 1 else x
    return x


def leaves(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else t.detach().requires_grad_() for t in tensors]


def results(call: Any, tensors: Sequence[Tensor | None], g: Tensor) -> list[Tensor]:
    y = call(*tensors)
    wanted = [t for t in tensors if t is not None]
    return [y.detach(), *torch.autograd.grad(y, wanted, g.to(y.dtype))]


def judge(
    call: Any, by_torch: Any, tensors: Sequence[Tensor | None], g: Tensor, dtype: torch.dtype
) -> tuple[list[Tensor], list[Any]]:
    """Each result beside float64, within its rounding and that of its terms' sum; returns them, and the launches."""
    with neurokern.emulate(), neurokern.strict(), neurokern.trace() as launches:
        got = results(call, leaves(tensors), g)
    wide = [None if t is None else t.double() for t in tensors]
    want = results(by_torch, leaves(wide), g.double())
    terms = results(by_torch, leaves([None if t is None else t.abs() for t in wide]), g.double().abs())
    for x, y, of in zip(got, want, terms, strict=True):
        assert x.dtype == dtype
        assert x.shape == y.shape
        error = (x.double() - y).abs()
        assert (error <= EPS[dtype] * y.abs() + SUMS[dtype] * of).all(), (error.max(), y.abs().max())
    return got, list(launches)


def made(shape: Sequence[int], dtype: torch.dtype, layout: str, dims: int) -> Tensor:
    return laid_out(torch.randn(*shape).to(dtype), layout, dims)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_convolution(case: str, dtype: str, layout: str) -> None:
    """The result, and the gradients to image, weight and bias."""
    if dtype != "bf16" and layout == "strided" and case not in ("3x3", "odd groups"):
        pytest.skip("said by bf16")
    image, weight, stride, padding, dilation, groups, mode = CASES[case]
    kind, dims = DTYPES[dtype], len(stride)
    tensors = [made(image, kind, layout, dims), made(weight, kind, layout, dims), torch.randn(weight[0]).to(kind)]
    window = (f"conv{dims}d", list(stride), list(padding), list(dilation), groups, mode)
    shape = ops._by_torch(*(t.to("meta") for t in tensors), *window).shape
    g = made(shape, kind, layout, dims)
    judge(lambda *t: ops.convolution(*t, *window), lambda *t: ops._by_torch(*t, *window), tensors, g, kind)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed(case: str, dtype: str, layout: str) -> None:
    inputs, weight, stride, padding, more, dilation, groups = TRANSPOSED[case]
    kind, dims = DTYPES[dtype], len(stride)
    bias = torch.randn(weight[1] * groups).to(kind)
    tensors = [made(inputs, kind, layout, dims), made(weight, kind, layout, dims), bias]
    window = (f"conv_transpose{dims}d", list(stride), list(padding), list(more), list(dilation), groups)
    shape = ops._transpose_by_torch(*(t.to("meta") for t in tensors), *window).shape
    g = made(shape, kind, layout, dims)
    judge(
        lambda *t: ops.convolution_transpose(*t, *window),
        lambda *t: ops._transpose_by_torch(*t, *window),
        tensors, g, kind,
    )  # fmt: skip


ACTIVATIONS = [("relu", 0.0, 0.0), ("gelu", 0.0, 0.0), ("silu", 0.0, 0.0), ("leaky_relu", 0.1, 0.0)]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ACTIVATIONS, ids=[act[0] for act in ACTIVATIONS])
def test_epilogue(act: tuple[str, float, float], dtype: str, layout: str) -> None:
    """Bias, activation and residual in one pass; what goes into the activation is kept for the backward."""
    kind = DTYPES[dtype]
    tensors = [made((2, 16, 7, 9), kind, layout, 2), made((40, 8, 3, 3), kind, layout, 2)]
    tensors += [torch.randn(40).to(kind), made((2, 40, 7, 9), kind, layout, 2)]
    window, g = ("conv2d", [1, 1], [1, 1, 1, 1], [1, 1], 2, "zeros"), made((2, 40, 7, 9), kind, layout, 2)
    with neurokern.emulate(), neurokern.strict():
        got = results(lambda *t: ops.convolution_activation(*t, *window, *act), leaves(tensors), g)
        assert torch.equal(got[0], ops.convolution_activation(*tensors, *window, *act))
    wide = [t.double() for t in tensors]
    want = results(lambda *t: ops._activation_by_torch(*t, *window, *act), leaves(wide), g.double())
    identity = ("identity", 0.0, 0.0)
    terms = results(
        lambda *t: ops._activation_by_torch(*t, *window, *identity), leaves([t.abs() for t in wide]), g.double().abs()
    )
    assert got[0].stride() == ops._by_torch(*tensors[:3], *window).stride()
    slack = [SUMS[kind], *[1.2 * SUMS[kind] + 2 * EPS[kind]] * 4]  # a gradient is of another that was rounded
    for x, y, of, some in zip(got, want, terms, slack, strict=True):
        assert ((x.double() - y).abs() <= EPS[kind] * y.abs() + some * of).all()


def test_results_are_the_same_at_every_run() -> None:
    x, w, b = torch.randn(2, 16, 9, 9).bfloat16(), torch.randn(16, 16, 3, 3).bfloat16(), torch.randn(16).bfloat16()
    g = torch.randn(2, 16, 9, 9).bfloat16()
    window = ("conv2d", [1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros")
    with neurokern.emulate(), neurokern.strict():
        first, second = (results(lambda *t: ops.convolution(*t, *window), leaves((x, w, b)), g) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_empty() -> None:
    """Without images, and without channels: a bias alone."""
    window = ("conv2d", [1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros")
    for x, w in (((0, 8, 5, 5), (16, 8, 3, 3)), ((2, 0, 5, 5), (16, 0, 3, 3))):
        tensors = [torch.randn(x), torch.randn(w), torch.randn(16)]
        g = torch.randn(x[0], 16, 5, 5)
        with neurokern.emulate(), neurokern.strict():
            got = results(lambda *t: ops.convolution(*t, *window), leaves(tensors), g)
        bias = tensors[2].view(1, -1, 1, 1).expand(g.shape)
        assert torch.equal(got[0], bias)
        assert torch.equal(got[2], torch.zeros(w))
        torch.testing.assert_close(got[3], g.sum((0, 2, 3)))
