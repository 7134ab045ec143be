"""Convolution's Triton kernels with any arguments and strides against torch, beyond 32 bits, and bit for bit the same.

Runs in a process of its own, as TRITON_INTERPRET decides when kernels are decorated.
"""

from __future__ import annotations

import mmap
import os
import random

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
pytestmark = pytest.mark.slow
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")

if INTERPRETED:
    import neurokern
    from neurokern.kernels.triton import convolution as kernels
    from neurokern.ops import convolution as ops
else:

    def test_the_rest(in_a_process_of_its_own):
        in_a_process_of_its_own("1")


needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="runs in the process started above")
BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
ACTS = ("identity", "gelu", "tanh")


def laid_out(t: Tensor, draw: random.Random) -> Tensor:
    """The same values as they are, permuted in memory, with gaps of NaN or with channels last."""
    form = draw.randrange(4)
    if form == 0 and t.dim() == 4:
        return t.contiguous(memory_format=torch.channels_last)
    if form == 1:
        memory = t.new_full((*t.shape, 2), float("nan"))
        memory[..., 0] = t
        return memory[..., 0]
    if form == 2:
        order = draw.sample(range(t.dim()), t.dim())
        return t.permute(order).contiguous().permute([order.index(i) for i in range(t.dim())])
    return t


def window(draw: random.Random, dims: int) -> tuple[list[int], list[int], tuple]:
    """Pixels, kernel, and (face, stride, padding, dilation) that fit each other."""
    three = [[draw.randint(1, 3) for _ in range(dims)] for _ in range(3)]
    kernel, stride, dilation = three
    padding = [draw.randint(0, 2) for _ in range(2 * dims)]
    pixels = [
        max(draw.randint(3, 6), d * (k - 1) + 1 - a - b)
        for d, k, a, b in zip(dilation, kernel, padding[::2], padding[1::2], strict=True)
    ]
    return pixels, kernel, (f"conv{dims}d", stride, padding, dilation)


def agree(ours: list[Tensor], exact: list[Tensor], sizes: list[Tensor], what: object) -> None:
    """Each within a few roundings of the sum of its terms' absolute values."""
    for a, want, size in zip(ours, exact, sizes, strict=True):
        assert a.shape == want.shape, what
        error = (a.double() - want).abs()
        assert (error <= BOUNDS[a.dtype] * (4 * size.abs() + 1)).all(), (what, error.max())


def judged(op, reference, tensors: list[Tensor | None], more: tuple, draw: random.Random, what: object) -> None:
    """Result and gradients of an op against torch's in f64; sizes are those of the same sums of absolute values."""
    given = [i for i, t in enumerate(tensors) if t is not None]

    def run(function, values: list[Tensor | None], g: Tensor | None, backend: str | None) -> list[Tensor]:
        leaves = [t if t is None else t.detach().requires_grad_() for t in values]
        with neurokern.backend(backend) if backend else torch.enable_grad():
            out = function(*leaves, *more)
            out = out[0] if isinstance(out, tuple) else out
            g = torch.ones_like(out) if g is None else g
            return [out.detach(), *torch.autograd.grad(out, [leaves[i] for i in given], g)]

    shape = run(reference, [t if t is None else t.double() for t in tensors], None, None)[0].shape
    g = torch.randn(shape, dtype=torch.float64).to(tensors[0].dtype)
    ours = run(op, [t if t is None else laid_out(t, draw) for t in tensors], laid_out(g, draw), "triton")
    exact = run(reference, [t if t is None else t.double() for t in tensors], g.double(), None)
    sizes = run(reference, [t if t is None else t.double().abs() for t in tensors], g.double().abs(), None)
    agree(ours, exact, sizes, what)


@needs_interpreter
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("kind", ["convolution", "activation", "transpose", "weight gradient"])
def test_any_arguments(kind, dtype, dims, seed):
    draw = random.Random(f"{seed} {kind} {dtype} {dims}")
    groups, channels, results = draw.choice([(1, 3, 20), (1, 17, 9), (2, 9, 10), (3, 5, 2), (5, 1, 1), (4, 1, 2)])
    pixels, kernel, (face, stride, padding, dilation) = window(draw, dims)
    mode = "zeros" if kind == "transpose" else draw.choice(["zeros", "reflect", "replicate", "circular"])
    batch = draw.choice([[], [1], [3]])

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    x, w = normal(*batch, groups * channels, *pixels), normal(groups * results, channels, *kernel)
    bias = draw.choice([None, normal(groups * results)])
    shape = (face, stride, padding, dilation, groups, mode)
    what = (tuple(x.shape), tuple(w.shape), shape)
    if kind == "convolution":
        judged(ops.convolution, ops._by_torch, [x, w, bias], shape, draw, what)
    elif kind == "activation":
        y = ops._by_torch(x.double(), w.double(), None, *shape)
        given = [x, w, bias, draw.choice([None, normal(*y.shape)])]
        more = (*shape, draw.choice(ACTS) if dtype == torch.float64 else "identity", 0.0, 0.0)
        judged(ops.convolution_activation, ops._activation_recorded_by_torch, given, more, draw, what)
    elif kind == "weight gradient":
        g = normal(*ops._by_torch(x.double(), w.double(), None, *shape).shape)

        def by_torch(g: Tensor, x: Tensor, *_: object) -> Tensor:
            weight = w.double().requires_grad_()
            y = ops._by_torch(x, weight, None, *shape)
            return torch.autograd.grad(y, weight, g, create_graph=True)[0]

        more = (face, kernel, *shape[1:])
        judged(ops.convolution_weight_gradient, by_torch, [g, x], more, draw, what)
    else:
        more_pixels = [draw.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)]
        padding = [min(p, (d * (k - 1)) // 2) for p, d, k in zip(padding, *_twice(dilation, kernel), strict=True)]
        given = [normal(*batch, groups * results, *pixels), w, draw.choice([None, normal(groups * channels)])]
        more = (face.replace("conv", "conv_transpose"), stride, padding, more_pixels, dilation, groups)
        judged(ops.convolution_transpose, ops._transpose_by_torch, given, more, draw, (what, more))


def _twice(*lists: list[int]) -> list[list[int]]:
    return [[v for v in values for _ in range(2)] for values in lists]


def far_apart(values: Tensor, *strides: int) -> Tensor:
    """``values`` with these strides, in memory of which only the elements are ever touched."""
    reach = sum((n - 1) * s for n, s in zip(values.shape, strides, strict=True)) + 1
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    memory = mmap.mmap(-1, reach * values.element_size(), flags=flags)
    return torch.frombuffer(memory, dtype=values.dtype).as_strided(values.shape, strides).copy_(values)


@needs_interpreter
@pytest.mark.parametrize("groups", [1, 12], ids=["product", "direct"])
def test_channels_beyond_32_bits(groups):
    """Of image, weight, bias and result in turn: a channel's distance fits 32 bits, that of all channels does not."""
    x, w = torch.randn(2, 12, 1, 4, 5), torch.randn(24, 12 // groups, 1, 3, 3)
    bias, y = torch.randn(24), torch.empty(2, 24, 1, 2, 3)
    g = kernels.Geometry((1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1), groups)
    want = torch.nn.functional.conv2d(x[:, :, 0], w[:, :, 0], bias, groups=groups)[:, :, None]
    gradient = torch.randn_like(y)
    far = 2**28
    for made, given in ((y, (far_apart(x, 20, far, 20, 5, 1), w, bias)), (y, (x, far_apart(w, far, 9, 9, 3, 1), bias)),
                        (y, (x, w, far_apart(bias, far))), (far_apart(y, 6, far, 6, 3, 1), (x, w, bias))):  # fmt: skip
        made.fill_(float("nan"))
        kernels.forward(made, given[0], given[1], g, given[2])
        torch.testing.assert_close(made, want, rtol=1e-4, atol=1e-4)
    near, gx = torch.empty_like(w), torch.empty_like(x)
    kernels.weight_gradient(near, x, gradient, g)
    apart, image = torch.empty_like(w), torch.empty_like(x)
    kernels.weight_gradient(apart, far_apart(x, 20, far, 20, 5, 1), far_apart(gradient, 6, far, 6, 3, 1), g)
    torch.testing.assert_close(apart, near, rtol=0, atol=0)
    kernels.data_gradient(gx, gradient, w, g)
    kernels.data_gradient(image, far_apart(gradient, 6, far, 6, 3, 1), w, g)
    torch.testing.assert_close(image, gx, rtol=0, atol=0)
    sums, far_sums = torch.empty(24), torch.empty(24)
    kernels.channel_sums(sums, gradient)
    kernels.channel_sums(far_sums, far_apart(gradient, 6, far, 6, 3, 1))
    torch.testing.assert_close(far_sums, sums, rtol=0, atol=0)


@needs_interpreter
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_gradients_are_the_same_each_time(mode):
    x, w = torch.randn(2, 20, 6, 7, requires_grad=True), torch.randn(12, 20, 3, 2, requires_grad=True)
    runs = []
    for _ in range(2):
        with neurokern.backend("triton"):
            y = ops.convolution(x, w, None, "conv2d", [2, 1], [1, 2, 2, 1], [1, 1], 1, mode)
            runs.append(torch.autograd.grad(y.square().sum(), (x, w)))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@needs_interpreter
def test_folded_gradients_are_rounded_once():
    """A pixel that the padding repeats: its gradient is a sum of many, of which each is 1 and 2**-8 in bf16."""
    w = torch.tensor([[[1.0, 2**-9, 2**-9]]], dtype=torch.bfloat16)
    g, gx = torch.ones(1, 1, 1, 1, 3, dtype=torch.bfloat16), torch.empty(1, 1, 1, 1, 1, dtype=torch.bfloat16)
    around = kernels.Geometry((1, 1, 1), (0, 0, 2), (0, 0, 2), (1, 1, 1), 1, "replicate")
    kernels.data_gradient(gx, g, w[:, :, None, None], around)
    assert gx.item() == (3 * w.double().sum()).to(torch.bfloat16).item()
