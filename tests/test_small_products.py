"""Products that lie within one vector, by the thousand: of any strides, each is the product it would be alone."""

from __future__ import annotations

import neurokern
import neurokern.functional as F
import pytest
import torch

LAYOUTS = {
    "contiguous": lambda b, m, n: torch.randn(b, m, n),
    "transposed": lambda b, m, n: torch.randn(b, n, m).transpose(1, 2),
    "every other matrix": lambda b, m, n: torch.randn(2 * b, m, n)[::2],
    "columns of a wider one": lambda b, m, n: torch.randn(b, m, n + 1)[..., :n],
    "batch innermost": lambda b, m, n: torch.randn(m, n, b).permute(2, 0, 1),
    "one for all": lambda b, m, n: torch.randn(m, n).expand(b, m, n),
    "one column": lambda b, m, n: torch.randn(b, m, 1).expand(b, m, n),
}
SIZES = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (3, 2, 4), (1, 3, 3), (3, 1, 3), (3, 3, 1), (2, 1, 5), (5, 3, 5)]


def close(made: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | float = 0.0) -> None:
    exact = a.double() @ b.double() + bias
    bound = a.double().abs() @ b.double().abs() + abs(bias)
    eps = torch.finfo(made.dtype).eps
    assert ((made.double() - exact).abs() <= 2 * (a.shape[-1] + 1) * eps * bound).all()


def is_small(launches: list) -> bool:
    (launch,) = launches
    return launch.plan.startswith("small") or not launch.kernel.endswith("avx512")  # others have no permutation for it


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
def test_batches_of_any_layout(left: str, right: str, size) -> None:
    m, k, n = size
    for dtype in (torch.float32, torch.float64):
        a, b = LAYOUTS[left](9, m, k).to(dtype), LAYOUTS[right](9, k, n).to(dtype)
        made = F.bmm(a, b)
        close(made, a, b)
        assert torch.equal(made, F.bmm(a, b))
        assert torch.equal(made[3], F.mm(a[3], b[3]))


@pytest.mark.parametrize("rows", [8, 64, 65, 1001, 20000])
@pytest.mark.parametrize("k, n", [(3, 1), (1, 1), (2, 3), (3, 4), (1, 7), (5, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_rows_of_a_narrow_product(rows: int, k: int, n: int, bias: bool, threads: int) -> None:
    for dtype in (torch.float32, torch.float64):
        x, w = torch.randn(rows, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
        c = torch.randn(n, dtype=dtype) if bias else None
        made = F.linear(x, w, c)
        close(made, x, w.t(), 0.0 if c is None else c.double())
        assert torch.equal(made, F.linear(x, w, c))


def test_many_go_this_way(threads: int) -> None:
    for call in (
        lambda: F.bmm(torch.randn(4096, 3, 3), torch.randn(4096, 3, 3)),
        lambda: F.bmm(torch.randn(2000, 4, 4), torch.randn(2000, 4, 4).transpose(1, 2)),
        lambda: F.matmul(torch.randn(40, 50, 2, 2).double(), torch.randn(2, 2).double().expand(40, 50, 2, 2)),
        lambda: F.linear(torch.randn(4096, 3), torch.randn(1, 3), torch.randn(1)),
        lambda: F.linear(torch.randn(64, 64, 3), torch.randn(2, 3)),
    ):
        with neurokern.trace() as launches:
            call()
        assert is_small(launches), launches


def test_what_comes_after_is_not_lost() -> None:
    x, w, c = torch.randn(4096, 3), torch.randn(2, 3), torch.randn(2)
    r = torch.randn(4096, 2)
    exact = x.double() @ w.double().t() + c.double()
    torch.testing.assert_close(F.linear(x, w, c, activation="relu").double(), exact.relu(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(F.linear(x, w, c, residual=r).double(), exact + r, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        F.addmm(r, x, w.t(), alpha=0.5, beta=2).double(), 0.5 * (exact - c) + 2 * r, rtol=1e-5, atol=1e-5
    )


def test_nothing_around_is_read() -> None:
    a, b = torch.full((1002, 3, 3), torch.nan), torch.full((1002, 3, 3), torch.nan)
    a[1:-1], b[1:-1] = torch.randn(1000, 3, 3), torch.randn(1000, 3, 3)
    close(F.bmm(a[1:-1], b[1:-1]), a[1:-1], b[1:-1])
    x = torch.full((1003, 3), torch.nan)
    x[:-2] = torch.randn(1001, 3)
    w = torch.randn(3, 1)
    close(F.mm(x[:-2], w), x[:-2], w)


def test_infinities_stay_in_their_matrix() -> None:
    a, b = torch.randn(100, 3, 3), torch.randn(100, 3, 3)
    a[5, 1, 1], b[7, 0, 2] = torch.inf, torch.nan
    torch.testing.assert_close(F.bmm(a, b), torch.bmm(a, b), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("k", [1, 15, 16, 31, 63, 64, 65, 130, 1000, 10007])
def test_a_single_output(k: int, dtype: torch.dtype, threads: int) -> None:
    for step in (1, 3):
        a, b = torch.randn(k * step).to(dtype)[::step], torch.randn(k).to(dtype)
        exact, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
        made = F.matmul(a, b)
        # sums of halves are kept in float32, and rounded once
        kept = torch.finfo(dtype if dtype == torch.float64 else torch.float32).eps
        assert (made.double() - exact).abs() <= torch.finfo(dtype).eps * exact.abs() + 4 * k**0.5 * kept * size + 1e-12
        assert torch.equal(made, F.matmul(a, b))
        assert torch.equal(F.bmm(a.view(1, 1, k) if step == 1 else a[None, None], b[None, :, None])[0, 0, 0], made)
    x, y = torch.randn(9, 1, k).to(dtype), torch.randn(9, k, 1).to(dtype)
    many = F.bmm(x, y)
    scale = (x.double().abs() @ y.double().abs()).amax()
    assert (many.double() - x.double() @ y.double()).abs().amax() <= (torch.finfo(dtype).eps * scale + 1e-12) * 4
