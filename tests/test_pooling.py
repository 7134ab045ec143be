"""Pooling beside torch's: layouts, places of maxima, layers with random numbers, the same bits on any threads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import nn
from neurokern.testing import Maker, Target
from torch import Tensor

TF = torch.nn.functional
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
SIZES = {1: (19,), 2: (9, 12), 3: (5, 6, 7)}


def both(f: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return getattr(F, f)(*args, **kwargs), getattr(TF, f)(*args, **kwargs)


def same(made: Any, right: Any, **tolerance: float) -> None:
    """Values, dtype, strides; of every tensor of a tuple."""
    made, right = (v if isinstance(v, tuple) else (v,) for v in (made, right))
    for m, r in zip(made, right, strict=True):
        torch.testing.assert_close(m, r, equal_nan=True, check_stride=True, **tolerance)


def test_a_window_that_would_begin_in_the_right_padding_is_dropped() -> None:
    x = torch.tensor([[[1.0, 2, 3, 4, 5]]])
    assert F.max_pool1d(x, 2, 2, 1, ceil_mode=True).tolist() == [[[1, 3, 5]]]
    image = torch.arange(25.0).view(1, 1, 5, 5)
    same(*both("max_pool2d", image, 2, 2, 1, ceil_mode=True))
    assert F.max_pool2d(image, 2, 2, 1, ceil_mode=True).shape == (1, 1, 3, 3)


def test_an_overhanging_average_divides_by_what_is_there_and_so_does_its_gradient(on: Target) -> None:
    x = torch.tensor([[[1.0, 2, 3, 4, 5]]], device=on.device, requires_grad=True)
    y = F.avg_pool1d(x, 2, 2, ceil_mode=True)
    assert y.tolist() == [[[1.5, 3.5, 5]]]
    (g,) = torch.autograd.grad(y.sum(), x)
    assert g.tolist() == [[[0.5, 0.5, 0.5, 0.5, 1]]]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_places_of_ties_infinities_and_nan(n: int, dtype: torch.dtype, on: Target, seed: int) -> None:
    """Of equal maxima the first is named, of NaNs the last; in every lane and layout."""
    make = Maker.seeded(seed, "places", n, dtype=dtype, device=on.device)
    x = make.grid(2, 19, *SIZES[n], step=1.0, limit=1)
    x = torch.where(make(*x.shape) > 1.5, make.values(math.nan), x)
    x = torch.where(make(*x.shape) > 1.5, make.values(-math.inf), x)
    layouts = [x, x[:, :1], x[0], x.transpose(-1, 1).contiguous().transpose(-1, 1)]
    if n > 1:  # in such volumes torch names a place of another window where all is -inf
        last = x if n == 2 else torch.where(x == -math.inf, make.values(-9), x)
        layouts += [last.to(memory_format=CHANNELS_LAST[n]), last[:, :1].to(memory_format=CHANNELS_LAST[n])]
    for t in layouts:
        for args in ((3, 2, 1), (2,), (3, 1, 1, 2), (2, 2, 1, 1, True)):
            same(*both(f"max_pool{n}d_with_indices", t, *args))
        for size in (1, 3, SIZES[n][0] + 2):
            same(*both(f"adaptive_max_pool{n}d_with_indices", t, size))


def test_equal_channels_have_equal_answers(on: Target, seed: int) -> None:
    make = Maker.seeded(seed, "channels", device=on.device)
    one = make(1, 1, 11, 13)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = one.expand(1, 67, 11, 13).clone(memory_format=layout).requires_grad_()
        for f in (
            lambda t: F.max_pool2d(t, 3, 2, 1),
            lambda t: F.avg_pool2d(t, 3, 2, 1),
            lambda t: F.adaptive_avg_pool2d(t, 1),
            lambda t: F.lp_pool2d(t.abs(), 3.0, 2),
        ):
            y = f(x)
            (g,) = torch.autograd.grad(y, x, torch.ones_like(y))
            for t in (y, g):
                assert (t == t[:, :1]).all()


@pytest.mark.parametrize("n", [2, 3])
def test_outputs_lie_as_torchs_do(n: int, seed: int) -> None:
    """One channel, one image or one row leave the layout to the strides."""
    make = Maker.seeded(seed, "layouts", n)
    ways: list[tuple[str, tuple[Any, ...]]] = [
        ("max_pool", (2,)), ("avg_pool", (2,)), ("lp_pool", (2.0, 2)), ("adaptive_max_pool", (2,)),
        ("adaptive_avg_pool", (2,)), ("adaptive_avg_pool", (1,)),
    ]  # fmt: skip
    for shape in ((2, 3, 6, 5, 7), (2, 1, 6, 5, 7), (1, 3, 6, 5, 7), (1, 1, 6, 5, 7), (2, 3, 2, 3, 7)):
        x = make(*shape[: n + 2])
        every_other = make(2 * shape[0], *shape[1 : n + 2])[::2].to(memory_format=CHANNELS_LAST[n])
        for t in (x, x.to(memory_format=CHANNELS_LAST[n]), every_other, x.to(memory_format=CHANNELS_LAST[n])[..., :-1]):
            for f, args in ways:
                same(*both(f"{f}{n}d", t, *args))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_windows(n: int, dtype: torch.dtype, on: Target, seed: int) -> None:
    """The starts are computed in the input's type, as torch's are on the CPU."""
    make = Maker.seeded(seed, "random windows", n, dtype=dtype, device=on.device)
    x = make(2, 3, *(29, 23, 17)[:n]).requires_grad_()
    random = make(2, 3, n, low=0.0, high=1.0)
    for kernel, size in ((2, [11, 9, 7][:n]), (3, 5), (2, 1)):
        made, right = both(f"fractional_max_pool{n}d_with_indices", x, kernel, size, None, False, random)
        same(made, right)
        g = make(*made[0].shape)
        found = [torch.autograd.grad(v, x, g)[0] for v in (made[0], right[0])]
        torch.testing.assert_close(*found, rtol=2**-7, atol=2**-7)


def test_layers_of_random_windows(seed: int) -> None:
    make = Maker.seeded(seed, "layers")
    random = make(2, 3, 2, low=0.0, high=1.0)
    x = make(2, 3, 9, 9)
    for more in ({"output_size": 4}, {"output_ratio": 0.5}):
        ours, theirs = (
            m.FractionalMaxPool2d(2, return_indices=True, _random_samples=random, **more) for m in (nn, torch.nn)
        )
        same(ours(x), theirs(x))
    volume = torch.nn.FractionalMaxPool3d(2, 3, _random_samples=make(2, 3, 3, low=0.0, high=1.0))
    x = make(2, 3, 7, 7, 7)
    right = volume(x)
    assert neurokern.patch(volume)(x).equal(right)
    assert type(volume) is nn.FractionalMaxPool3d
    torch.manual_seed(seed)
    first = F.fractional_max_pool2d(x[0], 2, 3)
    torch.manual_seed(seed)
    assert first.equal(TF.fractional_max_pool2d(x[0], 2, 3))


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_adaptive_windows_over_some_whole_dims(kind: str, seed: int) -> None:
    """A whole depth and width are not one row where the height between them is divided."""
    x = Maker.seeded(seed, kind, dtype=torch.float64)(2, 3, 4, 5, 3).requires_grad_()
    for sizes in itertools.product((1, 2), repeat=3):
        ours, theirs = (getattr(f, f"adaptive_{kind}_pool3d")(x, sizes) for f in (F, TF))
        torch.testing.assert_close(ours, theirs)
        g = torch.randn_like(theirs)
        torch.testing.assert_close(*(torch.autograd.grad(y, x, g)[0] for y in (ours, theirs)))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_there_and_back(n: int, on: Target, seed: int) -> None:
    make = Maker.seeded(seed, "there and back", n, device=on.device)
    x = make(2, 3, *(2 * s for s in SIZES[n]))
    down, up = getattr(nn, f"MaxPool{n}d")(2, return_indices=True), getattr(nn, f"MaxUnpool{n}d")(2)
    y, indices = down(x)
    right = getattr(torch.nn, f"MaxUnpool{n}d")(2)(y, indices)
    same(up(y, indices), right)
    odd = make(2, 3, *SIZES[n])
    y, indices = down(odd)
    same(up(y, indices, odd.shape), getattr(torch.nn, f"MaxUnpool{n}d")(2)(y, indices, odd.shape))


def test_the_last_of_several_at_one_place(on: Target) -> None:
    """Whatever the order of threads; the gradient goes to each."""
    x = torch.arange(1.0, 5, device=on.device).view(1, 1, 4).requires_grad_()
    indices = torch.tensor([[[2, 0, 2, 2]]], device=on.device)
    y = F.max_unpool1d(x, indices, 2, output_size=[8])
    assert y.tolist() == [[[2, 0, 4, 0, 0, 0, 0, 0]]]
    (g,) = torch.autograd.grad(y, x, torch.arange(8.0, device=on.device).view(1, 1, 8))
    assert g.tolist() == [[[2, 0, 2, 2]]]


@pytest.mark.parametrize(
    ("f", "args"),
    [("max_pool2d", (3, 1, 1)), ("avg_pool2d", (3, 1, 1)), ("adaptive_avg_pool2d", (7,)), ("lp_pool2d", (2.0, 3, 1))],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_same_bits_on_any_number_of_threads(
    f: str, args: tuple[Any, ...], layout: torch.memory_format, seed: int
) -> None:
    make = Maker.seeded(seed, f)
    x = make(3, 40, 17, 19).to(memory_format=layout).requires_grad_()
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            y = getattr(F, f)(x, *args)
            found.append((y, *torch.autograd.grad(y, x, y.detach())))
    finally:
        torch.set_num_threads(threads)
    assert all(a.equal(b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_norms_of_infinite_order_and_wrong_ones(seed: int) -> None:
    x = Maker.seeded(seed, "norms")(2, 3, 9, 12)
    for p in (math.inf, -math.inf):
        same(*both("lp_pool2d", x, p, 3, 2))
    with pytest.raises(ZeroDivisionError, match=r"neurokern\.lp_pool2d"):
        F.lp_pool2d(x, 0.0, 2)


def test_no_windows(seed: int) -> None:
    x = Maker.seeded(seed, "none")(2, 3, 9, 12)
    for f in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        same(*both(f, x, 0))


def test_a_plane_too_large_for_places_of_a_float(seed: int) -> None:
    """Beyond 2^24 elements."""
    x = torch.zeros(1, 1, 2**24 + 8)
    x[..., -3] = 1
    same(*both("max_pool1d_with_indices", x, 2**20, 2**20))
    y, place = F.adaptive_max_pool1d(x, 1, return_indices=True)
    assert (y.item(), place.item()) == (1, 2**24 + 5)


def test_windows_between_the_elements() -> None:
    """With padding and dilation a window may hold nothing: torch gives -infinity, and the gradient goes nowhere."""
    x = torch.ones(1, 1, 1, requires_grad=True)
    y = F.max_pool1d(x, 2, 1, 2, 4)
    assert y.tolist() == [[[-math.inf]]]
    (g,) = torch.autograd.grad(y.sum(), x)
    assert g.tolist() == [[[0]]]


STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: F.max_pool2d(x, 2),
    "average": lambda x: F.avg_pool2d(x, 2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, None)),
    "norm": lambda x: F.lp_pool2d(x, 2.0, 2),
    "there and back": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
}


@pytest.mark.parametrize("name", STEPS)
def test_compiled_with_a_gradient(name: str, seed: int) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(STEPS[name], fullgraph=True, backend="aot_eager", dynamic=True)
    for layout in (torch.contiguous_format, torch.channels_last):
        for rows in (8, 12):
            x = Maker.seeded(seed, name)(2, 3, rows, 10).to(memory_format=layout).requires_grad_()
            y, right = compiled(x), STEPS[name](x)
            g = torch.ones_like(right)
            same((y, *torch.autograd.grad(y, x, g)), (right, *torch.autograd.grad(right, x, g)))
