"""Convolutions beside torch's: layouts, memory, arguments, layers, and calls known to go wrong elsewhere."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import neurokern
import neurokern.functional as F
import numpy as np
import pytest
import torch
from neurokern import nn
from neurokern.testing import Maker
from torch import Tensor

TF = torch.nn.functional
FACES = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def gradients(f: Callable[..., Tensor], *tensors: Tensor, order: int = 1) -> list[Tensor]:
    """The result and its gradients; to the second order, those of the gradients' squares."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = f(*leaves)
    g = torch.linspace(-1, 2, y.numel()).to(y.dtype).view(y.shape)
    first = torch.autograd.grad(y, leaves, g, create_graph=order > 1)
    if order == 1:
        return [y.detach(), *first]
    total = sum(t.square().sum() for t in first)
    return [y.detach(), *torch.autograd.grad(total, leaves)]


# ---- what went wrong elsewhere ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_a_sum_of_four_ones(dtype: torch.dtype) -> None:
    ones = torch.ones(1, 1, 2, 2, dtype=dtype)
    assert F.conv2d(ones, ones).item() == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("width", "window", "stride"), [(3, 3, (2, 2, 2)), (4, 3, (1, 2, 2)), (1, 1, (2, 2, 2))])
def test_volumes_one_column_wide(
    dtype: torch.dtype, width: int, window: int, stride: tuple[int, ...], seed: int
) -> None:
    make = Maker.seeded(seed, width, window, dtype=dtype)
    x, w = make.grid(2, 6, 7, 8, width), make.grid(5, 6, 3, 3, window)  # on a grid sums are exact
    y = F.conv3d(x, w, stride=stride)
    assert y.shape[-1] == 1
    assert torch.equal(y, TF.conv3d(x.double(), w.double(), stride=stride).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("last", [False, True])
def test_few_channels(last: bool, mode: str, dtype: torch.dtype, seed: int) -> None:
    """Windows whose rows have an odd number of elements, at strides; an infinity reaches those that hold it only."""
    make = Maker.seeded(seed, mode, dtype=dtype)
    for channels, window, stride in ((3, (7, 7), 2), (1, (3, 5), 1), (5, (2, 3), 3), (3, (11, 11), 4)):
        x, w, bias = make.grid(2, channels, 29, 30), make.grid(70, channels, *window), make.grid(70)
        x[0, 0, 20, 11] = torch.inf
        w[w == 0] = 1
        x = x.to(memory_format=torch.channels_last) if last else x
        padded = TF.pad(x.double(), (2, 2, 2, 2), "constant" if mode == "zeros" else mode)
        want = TF.conv2d(padded, w.double(), bias.double(), stride)
        got = F.conv2d(x, w, bias, stride, 2, padding_mode=mode)
        assert torch.equal(got, want.to(dtype)), (channels, window, stride)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_many_small_images_with_channels_innermost(dtype: torch.dtype, seed: int) -> None:
    """Several meet a panel of the weight at once; large pixels are padded; some phases of a stride have no tap."""
    make = Maker.seeded(seed, dtype=dtype)

    def check(face: str, image: tuple[int, ...], weight: tuple[int, ...], *numbers: Any) -> None:
        x, w = make.grid(*image).to(memory_format=LAST[len(image) - 2]), make.grid(*weight, limit=4)
        want = getattr(TF, face)(x.double(), w.double(), None, *numbers)
        assert torch.equal(getattr(F, face)(x, w, None, *numbers), want.to(dtype)), (face, image, weight)

    check("conv2d", (9, 40, 9, 9), (33, 40, 3, 3), 1, 1)
    check("conv2d", (5, 256, 7, 8), (70, 256, 3, 3), 1, 1)
    check("conv2d", (2, 130, 8, 9), (64, 130, 5, 5), 1, 2)
    check("conv3d", (2, 17, 6, 3, 12), (5, 17, 1, 3, 4), 1, (0, 1, 1), (1, 1, 3))
    check("conv_transpose3d", (2, 17, 6, 3, 12), (17, 5, 1, 3, 4), (2, 1, 1), (0, 1, 1), 0, 1, (3, 1, 3))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "dilation"), [(2, 1, 1, 1), (1, 0, 2, 3), (2, 2, 2, 3), (3, 1, 2, 1)]
)
def test_a_transposed_convolution_is_the_transpose(
    dims: int, stride: int, padding: int, output_padding: int, dilation: int, seed: int
) -> None:
    """<conv(u), x> = <u, conv_transpose(x)> for every u, where output_padding says which sizes of u there are."""
    make = Maker.seeded(seed, dims, stride, padding, dtype=torch.float64)
    x, w = make(2, 4, *[4, 3, 3][:dims]), make(4, 3, *[3] * dims)
    y = getattr(F, f"conv_transpose{dims}d")(x, w, None, stride, padding, output_padding, 1, dilation)
    expected = [(n - 1) * stride - 2 * padding + dilation * 2 + output_padding + 1 for n in x.shape[2:]]
    assert list(y.shape[2:]) == expected
    u = make(*y.shape)
    back = getattr(F, f"conv{dims}d")(u, w, None, stride, padding, dilation)
    back = back[(..., *[slice(n) for n in x.shape[2:]])]  # more output padding than stride is a window more
    torch.testing.assert_close((back * x).sum(), (u * y).sum())


# ---- layouts ----


def last(t: Tensor) -> Tensor:
    return t.to(memory_format=LAST[t.dim() - 2])


SHAPES: dict[str, tuple[tuple[int, ...], int, int]] = {
    "several channels": ((2, 4, 5, 6), 6, 3),
    "one channel": ((2, 1, 5, 6), 6, 3),
    "one channel out": ((2, 4, 5, 6), 1, 3),
    "one image": ((1, 4, 5, 6), 6, 3),
    "images of one pixel": ((2, 4, 1, 1), 6, 1),
    "results of one pixel": ((2, 4, 3, 3), 6, 3),
    "one number": ((1, 1, 1, 1), 1, 1),
    "a window of one pixel": ((2, 4, 5, 6), 6, 1),
    "no images": ((0, 4, 5, 6), 6, 3),
}


@pytest.fixture
def two_threads() -> Iterator[None]:
    """With one, torch has another kernel for small windows of float32, with a layout of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("face", ["conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d"])
def test_results_lie_as_torchs_do(name: str, dtype: torch.dtype, face: str) -> None:
    """Outputs and gradients, of images and weights in both layouts, with a batch and without."""
    shape, out, k = SHAPES[name]
    dims = int(face[-2])
    more = [shape[-1]] * (dims - 2)
    x = torch.randn(*shape, *more, dtype=dtype)
    weight = (shape[1], out) if "transpose" in face else (out, shape[1])
    w = torch.randn(*weight, *[k] * dims, dtype=dtype)
    for first in (x, last(x), x.permute(0, *range(2, x.dim()), 1).contiguous().movedim(-1, 1)):
        for second in (w, last(w)):
            for images in (first, first[0]) if len(first) else (first,):
                if chosen_by_size(images, second):
                    continue
                found = [gradients(getattr(f, face), images, second) for f in (F, TF)]
                if not len(first) and dims == 3:  # an empty batch sums nothing: its weight's gradient is made elsewhere
                    found = [made[:2] for made in found]
                for ours, theirs in zip(*found, strict=True):
                    assert ours.shape == theirs.shape
                    assert ours.stride() == theirs.stride(), (images.shape, images.stride(), second.stride())


def chosen_by_size(images: Tensor, weight: Tensor) -> bool:
    """Whether torch has two kernels of float32, with layouts of their own, and the number of images decides."""
    one = images.dim() < weight.dim() or len(images) == 1
    return one and images.dtype == torch.float32 and (weight.dim() == 5 or images.shape[-1] == 1)


def test_layers_keep_channels_last_through_a_network() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 4, 2, 2))
    y = model(torch.randn(2, 3, 9, 9).to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


# ---- memory ----

PEAK = """
    import ctypes, sys, torch, neurokern.functional as F

    def status(key):
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith(key)) << 10

    def beyond(f, *args):
        small = [a[:, :, :8] if a.dim() == 4 and a.shape[-1] > 8 else a for a in args]
        f(*small)  # what is loaded once
        ctypes.CDLL(None).malloc_trim(0)  # what is free is the system's again
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        before = status("VmRSS")
        made = f(*args)
        made = made if isinstance(made, tuple) else (made,)
        return (status("VmHWM") - before - sum(t.numel() * t.element_size() for t in made)) / 2**20

    def backward(f):
        def both(x, w):
            y = f(x, w)
            return y.detach(), *torch.autograd.grad(y, (x, w), y.detach())
        return both

    torch.set_num_threads(2)
    worst = {}
    for dtype, c in ((torch.float32, 32), (torch.bfloat16, 64)):
        x, w = torch.randn(2, c, 128, 128, dtype=dtype), torch.randn(c, c, 3, 3, dtype=dtype)
        one = torch.randn(c, 1, 3, 3, dtype=dtype)
        last = x.to(memory_format=torch.channels_last)
        for name, f, args in (
            ("plain", lambda x, w: F.conv2d(x, w, padding=1), (x, w)),
            ("channels last", lambda x, w: F.conv2d(x, w, padding=1), (last, w)),
            ("dilated", lambda x, w: F.conv2d(x, w, padding=2, dilation=2), (x, w)),
            ("reflected", lambda x, w: F.conv2d(x, w, padding=1, padding_mode="reflect"), (x, w)),
            ("two groups", lambda x, w: F.conv2d(x, w[:, : w.shape[1] // 2], padding=1, groups=2), (x, w)),
            ("depthwise", lambda x, w: F.conv2d(x, w, padding=1, groups=w.shape[0]), (x, one)),
            ("transposed", lambda x, w: F.conv_transpose2d(x, w, padding=1), (x, w)),
        ):
            worst[name, str(dtype)] = beyond(f, *args)
            args = [a.requires_grad_() for a in args]
            worst[name + ", backward", str(dtype)] = beyond(backward(f), *args)
            args = [a.detach_() for a in args]
    print(worst)
    sys.exit(max(worst.values()) > float(sys.argv[1]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_beyond_the_results_is_bounded() -> None:
    """No windows in a row (im2col would take 36 MiB) and no copy in another layout (4): 3 MiB of scratch."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PEAK), "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_one_launch(mode: str) -> None:
    """Padding of every mode, uneven, too, bias, activation and residual: all in one."""
    x, w, b = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 4, 3), torch.randn(6)
    r = torch.randn(2, 6, 8, 8)
    with neurokern.strict(), neurokern.trace() as launches:
        F.conv2d(x, w, b, padding="same", padding_mode=mode, activation="relu", residual=r)
    assert [row.op for row in launches] == ["conv2d"]


# ---- derivatives ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("face", FACES)
def test_second_derivatives_of_every_dtype(face: str, dtype: torch.dtype, seed: int) -> None:
    make = Maker.seeded(seed, face, dtype=dtype)
    dims = int(face[-2])
    x, w, b = make(2, 3, *[4] * dims, scale=0.3), make(3, 3, *[2] * dims, scale=0.3), make(3)

    def f(functions: Any, *args: Tensor) -> Tensor:
        return getattr(functions, face)(*args, stride=2, padding=1).square() / 32  # which float16 holds

    with neurokern.strict():
        ours = gradients(lambda *a: f(F, *a), x, w, b, order=2)
    exact = gradients(lambda *a: f(TF, *a), *(t.double() for t in (x, w, b)), order=2)
    for o, e in zip(ours, exact, strict=True):
        assert o.dtype == dtype
        assert (o.double() - e).abs().max() <= 4 * torch.finfo(dtype).eps * e.abs().max()


@pytest.mark.parametrize("face", FACES)
def test_autocast(face: str, seed: int) -> None:
    make = Maker.seeded(seed, face)
    dims = int(face[-2])
    x, w, b = (t.requires_grad_() for t in (make(2, 4, *[6] * dims), make(4, 4, *[3] * dims), make(4)))
    found = []
    for f in (F, TF):
        with torch.autocast("cpu", torch.bfloat16):
            y = getattr(f, face)(x, w, b)
        assert y.dtype == torch.bfloat16
        found.append([y.float(), *torch.autograd.grad(y.float().sum(), (x, w, b))])
        assert all(t.dtype == torch.float32 for t in found[-1])
    torch.testing.assert_close(*found, rtol=2**-6, atol=2**-4)


def test_only_what_is_wanted() -> None:
    """Frozen weights have no gradient, and neither has an image."""
    x, w, b = torch.randn(1, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.randn(4)
    for i in range(3):
        args = [t.clone().requires_grad_(k == i) for k, t in enumerate((x, w, b))]
        F.conv2d(*args).sum().backward()
        assert [t.grad is not None for t in args] == [k == i for k in range(3)]
        theirs = [t.clone().requires_grad_(k == i) for k, t in enumerate((x, w, b))]
        TF.conv2d(*theirs).sum().backward()
        torch.testing.assert_close(args[i].grad, theirs[i].grad)


# ---- what follows ops ----


def test_compiled_with_sizes_that_change(seed: int) -> None:
    """One graph of every size and both layouts; fakes say how results lie."""
    make = Maker.seeded(seed, "compiled")
    w, b = make(8, 8, 3, 3, scale=0.1), make(8)

    def f(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        y = F.conv2d(x, w, b, padding="same", activation="relu")
        y = F.conv2d(y, w[:, :1], b, 2, 1, groups=8, padding_mode="reflect")
        return F.conv_transpose2d(y, w, None, 2, 1, 1)

    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend="aot_eager")
    for n, size, turned in ((2, 9, False), (3, 12, True), (4, 8, True)):
        x = last(make(n, 8, size, size + 1)) if turned else make(n, 8, size, size + 1)
        ours, expected = gradients(compiled, x, w, b), gradients(f, x, w, b)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
        assert [t.stride() for t in ours] == [t.stride() for t in expected]


@pytest.mark.parametrize("face", FACES)
def test_transforms_of_torch_func(face: str, seed: int) -> None:
    make = Maker.seeded(seed, face)
    dims = int(face[-2])
    x, w = make(2, 3, *[4] * dims), make(3, 3, *[2] * dims)
    f = lambda x: getattr(F, face)(x, w, stride=2)  # noqa: E731
    torch.testing.assert_close(torch.func.vmap(f)(torch.stack((x, 2 * x)))[1], 2 * f(x))
    torch.testing.assert_close(torch.func.jvp(f, (x,), (x,))[1], f(x))
    leaf = x.clone().requires_grad_()
    y = f(leaf)
    g = make(3, *y.shape)
    (batch,) = torch.autograd.grad(y, leaf, g, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(batch, torch.stack([torch.autograd.grad(y, leaf, v, retain_graph=True)[0] for v in g]))


@pytest.mark.parametrize("padding", [1, "same", "valid"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_traced_by_fx(padding: Any, mode: str) -> None:
    """A weight has no sizes there."""
    layer, x = nn.Conv2d(3, 4, 3, padding=padding, dilation=2, padding_mode=mode), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(torch.fx.symbolic_trace(layer)(x), layer(x))


# ---- arguments ----


@pytest.mark.parametrize("number", [2, np.int64(2), torch.tensor(2), [2], (2,), [2, 2], torch.Size((2, 2))], ids=repr)
def test_numbers_as_torch_takes_them(number: Any, seed: int) -> None:
    make = Maker.seeded(seed, "numbers")
    x, w = make(2, 3, 9, 9), make(4, 3, 3, 3)
    for name in ("stride", "padding", "dilation"):
        torch.testing.assert_close(F.conv2d(x, w, **{name: number}), TF.conv2d(x, w, **{name: number}))
    t = F.conv_transpose2d(x, w[:3], stride=number, output_padding=1)
    torch.testing.assert_close(t, TF.conv_transpose2d(x, w[:3], stride=number, output_padding=1))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [0, 1, (2, 1), "same", "valid"], ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)], ids=str)
def test_layers_of_every_padding(mode: str, padding: Any, kernel: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    theirs = torch.nn.Conv2d(3, 4, kernel, padding=padding, padding_mode=mode, dilation=(1, 2))
    ours = nn.Conv2d(3, 4, kernel, padding=padding, padding_mode=mode, dilation=(1, 2))
    ours.load_state_dict(theirs.state_dict())
    for shape in ((2, 3, 9, 10), (3, 9, 10)):
        x = torch.randn(shape)
        with neurokern.strict():
            torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_size_of_a_transposed_output(dims: int, seed: int) -> None:
    torch.manual_seed(seed)
    args = (4, 6, 3, 2, 1)
    ours, theirs = (getattr(n, f"ConvTranspose{dims}d")(*args) for n in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, *[5] * dims)
    for size in ([9] * dims, [10] * dims, [2, 6, *[10] * dims], None):
        with neurokern.strict():
            y = ours(x, output_size=size)
        torch.testing.assert_close(y, theirs(x, output_size=size))
    with pytest.raises(ValueError, match="requested an output size"):
        ours(x, output_size=[12] * dims)


# ---- layers ----


class OwnConvForward(torch.nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight * 2, bias)


class OwnOutputPadding(torch.nn.ConvTranspose2d):
    def _output_padding(self, *args: Any, **kwargs: Any) -> list[int]:
        return [1, 1]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (OwnConvForward(3, 3, 1), "a _conv_forward of its own"),
        (OwnOutputPadding(3, 3, 3, 2), "a _output_padding of its own"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, torch.nn.Module) else None,
)
def test_what_torchs_forward_calls_stays_theirs(layer: torch.nn.Module, reason: str) -> None:
    x = torch.randn(1, 3, 4, 4)
    expected = layer(x)
    assert neurokern.report(layer).rows[0].reason == reason
    kind = type(layer)
    assert type(neurokern.patch(layer)) is kind
    assert torch.equal(layer(x), expected)


def test_a_subclass_of_ours_calls_its_own() -> None:
    class Doubled(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return super()._conv_forward(input, weight * 2, bias)

    layer, x = Doubled(3, 3, 1, bias=False), torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(layer(x), 2 * TF.conv2d(x, layer.weight))


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"stride": "relu"}, "argument stride is 'relu'; pass activation='relu'"),
        ({"bias": "gelu"}, "argument bias is 'gelu'; pass activation='gelu'"),
        ({"bias": torch.nn.LeakyReLU(0.2)}, r"argument bias is .*; pass activation=\('leaky_relu', 0.2\)"),
        ({"bias": 1}, "argument bias is 1, expected a bool"),
        ({"device": "silu"}, "argument device is 'silu'; pass activation='silu'"),
        ({"activation": torch.relu}, "argument activation is .*; pass 'relu'"),
    ],
    ids=["stride", "bias", "a module", "a number", "device", "a function"],
)
def test_an_activation_in_another_place(kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=f"ConvActivation2d: {says}"):
        nn.ConvActivation2d(3, 4, 3, **kwargs)


def test_no_such_activation() -> None:
    with pytest.raises(ValueError, match="ConvActivation2d: activation is 'rleu', expected None or one of"):
        nn.ConvActivation2d(3, 4, 3, activation="rleu")


def test_conv_activation(seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.ConvActivation2d(3, 4, 3, 1, 1, padding_mode="reflect", activation=("leaky_relu", 0.2))
    x, r = torch.randn(2, 3, 6, 6), torch.randn(2, 4, 6, 6)
    plain = torch.nn.Conv2d(3, 4, 3, 1, 1, padding_mode="reflect")
    plain.load_state_dict(layer.state_dict())
    expected = TF.leaky_relu(plain(x), 0.2)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x, r), expected + r)
    assert "activation=('leaky_relu', 0.2)" in repr(layer)


def test_a_network_patched(seed: int) -> None:
    """Every convolution of it runs on our kernels, forward and backward, and gives what torch's gives."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1, groups=8),
        torch.nn.Conv2d(8, 12, 1), torch.nn.ReLU(), torch.nn.ConvTranspose2d(12, 3, 4, 2, 1), torch.nn.Flatten(2),
        torch.nn.Conv1d(3, 2, 5, 2), torch.nn.Unflatten(2, (2, 3, 21)), torch.nn.Conv3d(2, 4, 2),
    )  # fmt: skip
    x = torch.randn(2, 3, 16, 16)
    parameters = list(model.parameters())

    y = model(x)
    expected = [y.detach(), *torch.autograd.grad(y.square().sum(), parameters)]
    neurokern.patch(model)
    with neurokern.strict(), neurokern.trace() as launches:
        y = model(x)
        found = [y.detach(), *torch.autograd.grad(y.square().sum(), parameters)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert {row.backend for row in launches} == {"cpu"}
