"""Tensors of more than 2**31 elements, where a 32-bit index would wrap; run with `-m large` (24 GiB of memory)."""

from __future__ import annotations

import neurokern.functional as F
import pytest
import torch

pytestmark = [pytest.mark.large, pytest.mark.slow]

BEYOND = 2**31 + 7


def windows(n: int) -> list[slice]:
    """Stretches about the places where an index of 31 or 32 bits, or one in bytes, wraps; and both ends."""
    marks = (0, 2**30, 2**31, n)
    return [slice(max(0, m - 1000), min(n, m + 1000)) for m in marks]


@pytest.fixture
def long() -> torch.Tensor:
    """bfloat16 values that differ from stretch to stretch, 4 GiB."""
    x = torch.empty(BEYOND, dtype=torch.bfloat16)
    for start in range(0, BEYOND, 2**28):
        part = x[start : start + 2**28]
        part.copy_(torch.randn(1 << 16, dtype=torch.bfloat16).repeat(-(-len(part) // (1 << 16)))[: len(part)])
        part.sub_(start / 2**31)
    return x


def test_elementwise(long: torch.Tensor) -> None:
    y = F.relu(long)
    for w in windows(BEYOND):
        assert torch.equal(y[w], torch.relu(long[w])), w
    for start in range(0, BEYOND, 2**28):
        part = slice(start, start + 2**28)
        assert torch.equal(y[part], torch.relu(long[part])), part


def test_in_place(long: torch.Tensor) -> None:
    expected = [torch.relu(long[w]) for w in windows(BEYOND)]
    F.relu_(long)
    for w, e in zip(windows(BEYOND), expected, strict=True):
        assert torch.equal(long[w], e), w


def test_softmax_of_a_row_beyond(long: torch.Tensor) -> None:
    """Two rows, the second beyond 2**30 elements: offsets of rows are wide."""
    x = long[: 2 * (2**30 + 3)].view(2, 2**30 + 3)
    top = x[1].max().float()
    y = F.softmax(x, -1)
    total = sum(
        float((x[1, i : i + 2**26].float() - top).exp().sum(dtype=torch.float64)) for i in range(0, 2**30 + 3, 2**26)
    )
    expected = (x[1, -1000:].float() - top).exp() / total
    torch.testing.assert_close(y[1, -1000:].float(), expected, rtol=2**-7, atol=1e-12)


def sparse_rows(rows: int, columns: int, stride: int, dtype: torch.dtype) -> torch.Tensor:
    """A matrix of few rows that lie far apart: a view into memory of which only those rows are ever touched."""
    t = torch.empty((rows - 1) * stride + columns, dtype=dtype).as_strided((rows, columns), (stride, 1))
    return t.copy_(torch.randn(rows, columns))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_product_of_rows_that_lie_far_apart(dtype: torch.dtype) -> None:
    stride = 2**30 + 5  # the third row begins beyond 2**31 elements
    a = sparse_rows(3, 40, stride, dtype)
    b = torch.randn(40, 17).to(dtype)
    expected = a.contiguous().float() @ b.float()
    torch.testing.assert_close(F.matmul(a, b).float(), expected, rtol=2**-7, atol=2**-5)
    w = sparse_rows(3, 40, stride, dtype)
    x = torch.randn(19, 40).to(dtype)
    torch.testing.assert_close(F.linear(x, w).float(), x.float() @ w.contiguous().float().t(), rtol=2**-7, atol=2**-5)


def test_product_of_more_than_2_31_elements() -> None:
    """[2**21 + 3, 1024] bfloat16: every row's product, the last ones beyond the wrap."""
    m, k = 2**21 + 3, 1024
    row = torch.randn(4096, k, dtype=torch.bfloat16)
    a = torch.empty(m, k, dtype=torch.bfloat16)
    for start in range(0, m, 4096):
        a[start : start + 4096].copy_(row[: min(4096, m - start)])
    a[-5:].neg_()
    b = torch.randn(k, 3, dtype=torch.bfloat16)
    y = F.matmul(a, b)
    for w in (slice(0, 50), slice(2**20, 2**20 + 50), slice(m - 50, m)):
        torch.testing.assert_close(y[w].float(), a[w].float() @ b.float(), rtol=2**-6, atol=0.3)


def test_output_of_more_than_2_31_elements() -> None:
    """An outer product of [2**16 + 1] and [2**15 + 1]: the output's offsets are wide."""
    m, n = 2**16 + 1, 2**15 + 1
    a, b = torch.randn(m, 1, dtype=torch.bfloat16), torch.randn(1, n, dtype=torch.bfloat16)
    y = F.matmul(a, b)
    assert y.numel() > 2**31
    for w in (slice(0, 3), slice(m - 3, m)):
        assert torch.equal(y[w], a[w] * b)
