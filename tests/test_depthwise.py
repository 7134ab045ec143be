"""Convolutions with few channels in a group on the CPU: layouts, padding modes, strides, dtypes, instruction sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import neurokern as nk
import pytest
import torch
from neurokern import _C
from neurokern.ops.convolution import convolution, convolution_activation, convolution_transpose
from neurokern.testing.compare import Profile, Result, mismatch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LAYOUTS = ("first", "last", "odd")
CONV = {d: getattr(torch.nn.functional, f"conv{d}d") for d in (1, 2, 3)}
TRANSPOSED = {d: getattr(torch.nn.functional, f"conv_transpose{d}d") for d in (1, 2, 3)}


@dataclass(frozen=True)
class Case:
    why: str
    image: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]  # before and behind
    dilation: tuple[int, ...]
    groups: int
    results: int
    mode: str = "zeros"

    @property
    def dims(self) -> int:
        return len(self.kernel)

    def window(self) -> tuple[Any, ...]:
        walk = (list(self.stride), list(self.padding), list(self.dilation))
        return f"conv{self.dims}d", *walk, self.groups, self.mode

    def by_torch(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        pairs = list(zip(self.padding[::2], self.padding[1::2], strict=True))
        around = [p for pair in reversed(pairs) for p in pair]
        if self.mode != "zeros" or any(p != q for p, q in pairs):
            x = torch.nn.functional.pad(x, around, mode="constant" if self.mode == "zeros" else self.mode)
            pairs = [(0, 0)] * self.dims
        return CONV[self.dims](x, w, b, self.stride, [p for p, _ in pairs], self.dilation, self.groups)


CASES = [
    Case("a vector and a few channels", (2, 19, 9, 11), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 19, 19),
    Case("pairs of vectors, the last overlaps", (2, 40, 9, 15), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 40, 40),
    Case("every other pixel", (1, 32, 14, 14), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 32, 32),
    Case("padding behind alone, two results a channel", (2, 33, 15, 13), (3, 3), (2, 2), (0, 1, 0, 1), (1, 1), 33, 66),
    Case("a window as large as the image", (2, 48, 7, 7), (7, 7), (1, 1), (3, 3, 3, 3), (1, 1), 48, 48),
    Case("rows in tiles, reflected", (1, 20, 12, 70), (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 20, 20, "reflect"),
    Case("rows in tiles", (1, 33, 8, 150), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 33, 33),
    Case("wraps, dilated", (1, 20, 12, 10), (5, 3), (2, 1), (4, 4, 2, 2), (2, 2), 20, 20, "circular"),
    Case("two channels a group", (1, 8, 12, 10), (2, 3), (3, 2), (3, 2, 1, 2), (1, 3), 4, 16, "replicate"),
    Case("two channels a group, three results", (2, 8, 12, 10), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4, 12),
    Case("one dim, causal", (2, 17, 301), (4,), (1,), (3, 0), (1,), 17, 17),
    Case("one dim, reflected, dilated", (2, 17, 301), (9,), (3,), (4, 4), (2,), 17, 34, "reflect"),
    Case("three dims", (2, 33, 5, 6, 7), (3, 3, 3), (1, 1, 1), (1,) * 6, (1, 1, 1), 33, 33),
    Case("three dims, wraps", (1, 6, 5, 6, 7), (3, 2, 3), (2, 1, 2), (1,) * 6, (1, 2, 1), 6, 6, "circular"),
    Case("pixels that nothing reads", (1, 34, 6, 7), (1, 1), (2, 2), (0,) * 4, (1, 1), 34, 34),
    Case("a window beyond the image", (1, 34, 2, 3), (5, 5), (2, 2), (2,) * 4, (1, 1), 34, 34),
]
FEW = [CASES[i] for i in (1, 3, 5, 9)]


@pytest.fixture
def level() -> Iterator[Any]:
    before = _C.cpu_level()
    yield _C.set_cpu_level
    _C.set_cpu_level(before)


def laid_out(t: Tensor, layout: str) -> Tensor:
    if layout == "last":
        return t.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "odd":  # every other element of every dim
        wide = t.new_zeros([2 * n for n in t.shape])
        view = wide[tuple(slice(0, 2 * n, 2) for n in t.shape)]
        return view.copy_(t)
    return t


@dataclass
class Torch:
    """One output by torch: in its dtype, in float32, in float64, and the size of what was added up."""

    own: Tensor
    single: Tensor
    exact: Tensor
    scale: Tensor

    def judged(self, dtype: torch.dtype) -> Result:
        """float64 is judged by float32."""
        measured = self.single if dtype == torch.float64 else self.own
        flat = [t.detach().double().flatten() for t in (measured, self.exact, self.scale)]
        return Result(flat[0], flat[1], flat[2].clamp(min=1e-30))


def judge(what: str, ours: Tensor, draws: list[Torch]) -> None:
    """By the rule of the house, the first draw; torch's error is that of all."""
    results = [draw.judged(ours.dtype) for draw in draws]
    wrong = mismatch(ours, draws[0].own, results[0].reference, results[0].scale, Profile.of(results, local=False))
    assert wrong is None, f"{what}: {wrong}"


def by_torch(f: Any, size: Any, *inputs: Tensor) -> list[Torch]:
    """Of the outputs of f(*inputs); size: f of magnitudes."""
    single, exact = (f(*(to(t) for t in inputs)) for to in (Tensor.float, Tensor.double))
    scale = size(*(t.double().abs() for t in inputs))
    return [Torch(*each) for each in zip(f(*inputs), single, exact, scale, strict=True)]


def products(case: Case, x: Tensor, w: Tensor, b: Tensor, g: Tensor) -> list[Tensor]:
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = case.by_torch(x, w, b)
    return [y, *torch.autograd.grad(y, (x, w), g)]


DRAWS = 4  # small tensors say little about torch's error


def check(case: Case, layout: str, dtype: torch.dtype) -> None:
    def drawn() -> list[Tensor]:
        x = laid_out(torch.randn(case.image, dtype=dtype), layout)
        w = torch.randn(case.results, case.image[1] // case.groups, *case.kernel, dtype=dtype)
        w = w.transpose(0, -1).contiguous().transpose(0, -1) if layout == "odd" else w
        b = torch.randn(case.results, dtype=dtype)
        return [x, w, b, torch.randn_like(case.by_torch(x, w, b))]

    def of_case(*inputs: Tensor) -> list[Tensor]:
        return products(case, *inputs)

    inputs = [drawn() for _ in range(DRAWS)]
    draws = [by_torch(of_case, of_case, *each) for each in inputs]
    x, w, b, g = inputs[0]
    with nk.strict(), nk.trace() as log:
        y = convolution(x, w, b, *case.window())
        leaves = x.detach().requires_grad_(), w.detach().requires_grad_()
        gradients = torch.autograd.grad(convolution(*leaves, None, *case.window()), leaves, g)
    assert [launch.plan.split(", ")[1].split()[0] for launch in log] == ["depthwise"] * 4
    for i, (what, made) in enumerate(zip(("y", "gx", "gw"), [y, *gradients], strict=True)):
        judge(what, made, [draw[i] for draw in draws])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.why)
def test_products(case: Case, layout: str, dtype: torch.dtype) -> None:
    check(case, layout, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("name", ["scalar", "avx2", "avx512"])
def test_levels(name: str, layout: str, dtype: torch.dtype, level: Any) -> None:
    try:
        level(name)
    except ValueError:
        pytest.skip(f"no {name} here")
    for case in FEW:
        check(case, layout, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_epilogue(layout: str, dtype: torch.dtype) -> None:
    """Activation and residual after the sums; the gradient needs what went into the activation."""
    case = CASES[1]
    x = laid_out(torch.randn(case.image, dtype=dtype), layout)
    w, b = torch.randn(40, 1, 3, 3, dtype=dtype), torch.randn(40, dtype=dtype)
    r = torch.randn(2, 1, 9, 15, dtype=dtype).expand(2, 40, 9, 15)
    g = torch.randn(2, 40, 9, 15, dtype=dtype)

    def fused(x: Tensor, w: Tensor, b: Tensor, r: Tensor, g: Tensor) -> list[Tensor]:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = torch.nn.functional.silu(case.by_torch(x, w, b)) + r
        return [y, *torch.autograd.grad(y, (x, w), g)]

    def size(x: Tensor, w: Tensor, b: Tensor, r: Tensor, g: Tensor) -> list[Tensor]:
        y, *gradients = products(case, x, w, b, g)
        return [y + r, *gradients]

    draws = by_torch(fused, size, x, w, b, r, g)
    leaves = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = convolution_activation(*leaves, b, r, *case.window(), "silu", 0.0, 0.0)
    made = [y, *torch.autograd.grad(y, leaves, g)]
    for what, each, draw in zip(("y", "gx", "gw"), made, draws, strict=True):
        judge(what, each, [draw])
    assert y.equal(convolution_activation(x, w, b, r, *case.window(), "silu", 0.0, 0.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed(stride: int, layout: str, dtype: torch.dtype) -> None:
    """By phases, with a bias where no tap falls, too."""
    x = laid_out(torch.randn(2, 34, 7, 9, dtype=dtype), layout)
    w, b = torch.randn(34, 1, 2, 4, dtype=dtype), torch.randn(34, dtype=dtype)
    more = stride - 1

    def transposed(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
        return [TRANSPOSED[2](x, w, b, (stride, stride), (0, 1), (more, more), 34, (1, 1))]

    window = "conv_transpose2d", [stride] * 2, [0, 0, 1, 1], [more] * 2, [1, 1], 34
    judge("y", convolution_transpose(x, w, b, *window), by_torch(transposed, transposed, x, w, b))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_no_images(layout: str) -> None:
    x = laid_out(torch.zeros(0, 32, 6, 6), layout).requires_grad_()
    w = torch.randn(32, 1, 3, 3, requires_grad=True)
    y = convolution(x, w, None, "conv2d", [1, 1], [1] * 4, [1, 1], 32, "zeros")
    gx, gw = torch.autograd.grad(y.sum(), (x, w))
    assert y.shape == gx.shape == x.shape
    assert not gw.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_the_same_bits_again(layout: str, dtype: torch.dtype) -> None:
    """However the threads took turns."""
    x = laid_out(torch.randn(3, 48, 33, 40, dtype=dtype), layout).requires_grad_()
    w = torch.randn(48, 1, 3, 3, dtype=dtype, requires_grad=True)
    g = torch.randn(3, 48, 33, 40, dtype=dtype)

    def made() -> list[Tensor]:
        y = convolution(x, w, None, "conv2d", [1, 1], [1] * 4, [1, 1], 48, "zeros")
        return [y, *torch.autograd.grad(y, (x, w), g)]

    once = made()
    for _ in range(3):
        assert all(a.equal(b) for a, b in zip(once, made(), strict=True))


def test_past_the_caches() -> None:
    """A result larger than the last cache is the same as in pieces."""
    rows = _C.cpu_last_level_cache() // (4 * 64 * 512) + 8
    x = torch.randn(1, 64, rows, 512).to(memory_format=torch.channels_last)
    w = torch.randn(64, 1, 3, 3)
    window = "conv2d", [1, 1], [0, 0, 1, 1], [1, 1], 64, "zeros"
    whole = convolution(x, w, None, *window)
    half = rows // 2
    parts = [convolution(x[:, :, a:b], w, None, *window) for a, b in ((0, half + 2), (half, rows))]
    assert whole.equal(torch.cat(parts, 2))
