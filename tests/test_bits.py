"""Bits kept in the forward pass give the very gradient that the input would."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern import _C

OPS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "leaky_relu, slope -0.5": lambda x: F.leaky_relu(x, -0.5),
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "hardtanh to bounds between bf16 numbers": lambda x: F.hardtanh(x, -1.003, 0.7512345),
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.3, 2.0001),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ops = pytest.mark.parametrize("op", OPS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(params=["scalar", "avx2", "avx512"])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _C.cpu_level()
    try:
        _C.set_cpu_level(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    _C.set_cpu_level(before)


def sample(n: int, dtype: torch.dtype) -> torch.Tensor:
    x = (torch.randn(n, dtype=torch.float64) * 3).to(dtype)
    for k, value in enumerate((float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 6.0, 0.5)):
        x[k :: 97 + k] = value
    return x


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def by_input(y: torch.Tensor, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    act, p0, p1, *_ = y.grad_fn.spec  # behind them: what was kept, and the context
    return _C.unary_backward(g, x.detach(), act, p0, p1)


@ops
@dtypes
@pytest.mark.parametrize("n", [4096, 4097, 10007])  # whole steps, one more, and a tail of several vectors
def test_gradient_is_that_of_the_input(level: str, op: str, dtype: torch.dtype, n: int) -> None:
    x = sample(n, dtype).requires_grad_()
    y = OPS[op](x)
    with torch.no_grad():
        assert same(y, OPS[op](x))
    for g in (torch.randn(n).to(dtype), torch.ones((), dtype=dtype).expand(n), torch.randn(2 * n).to(dtype)[::2]):
        (gx,) = torch.autograd.grad(y, x, g, retain_graph=True)
        assert same(gx, by_input(y, g, x))


@dtypes
def test_threads_and_streaming_stores(dtype: torch.dtype) -> None:
    n = (4 << 20) // torch.finfo(dtype).bits * 8 + 37  # an output that goes past the caches
    x = sample(n, dtype).requires_grad_()
    y = F.leaky_relu(x)
    g = torch.randn(n).to(dtype)
    assert same(torch.autograd.grad(y, x, g, retain_graph=True)[0], by_input(y, g, x))


@dtypes
@ops
def test_clamped_values_are_rounded_once(level: str, op: str, dtype: torch.dtype) -> None:
    x = sample(5000, dtype)
    wide = OPS[op](x if dtype == torch.float64 else x.float()).to(dtype)
    assert same(OPS[op](x), wide)


def test_another_level_takes_the_input() -> None:
    x = sample(5000, torch.bfloat16).requires_grad_()
    y = F.relu(x)
    g = torch.randn(5000).bfloat16()
    expected = by_input(y, g, x)
    before = _C.cpu_level()
    _C.set_cpu_level("scalar")
    try:
        assert same(torch.autograd.grad(y, x, g)[0], expected)
    finally:
        _C.set_cpu_level(before)


@pytest.mark.parametrize("f, of_output", [(F.relu, True), (F.relu6, False)], ids=["relu", "relu6"])
def test_changing_what_was_saved_is_still_noticed(f: Callable[..., torch.Tensor], of_output: bool) -> None:
    x = torch.randn(5000, requires_grad=True)
    h = x * 1
    y = f(h)
    with torch.no_grad():
        (y if of_output else h).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_second_derivative_after_bits() -> None:
    x = torch.randn(5000, requires_grad=True)
    y = F.relu(x)
    (gx,) = torch.autograd.grad(y, x, x * x, create_graph=True)
    (second,) = torch.autograd.grad(gx.sum(), x)
    torch.testing.assert_close(second, torch.where(x > 0, 2 * x, 0.0))


def test_small_tensors_and_strided_ones_keep_none() -> None:
    for x in (torch.randn(64, requires_grad=True), torch.randn(100, 100).t().requires_grad_()):
        assert F.relu(x).grad_fn.spec[-2] is None
    with neurokern.trace() as launches:
        torch.autograd.grad(F.relu(x := torch.randn(5000, requires_grad=True)).sum(), x)
    assert [entry.op for entry in launches] == ["unary", "unary_backward"]
