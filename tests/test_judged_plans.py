"""Plans that the samples of the specs do not reach, for they are too large for all: judged as every sample is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import neurokern
import neurokern.functional as F
import pytest
import torch
from neurokern.testing import Maker, Sample, Target, judge, spec
from neurokern.testing.run import expected_of

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """Arguments of a spec's op for which a plan is another, and words of it in the trace: Triton's and CUDA's."""

    spec: str
    why: str
    args: Callable[[Maker], tuple[Any, ...]]
    triton: str
    cuda: str
    kwargs: Callable[[Maker], dict[str, Any]] = lambda make: {}
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)


def long_rows(make: Maker) -> tuple[Any, ...]:
    return make(2, 9000, scale=3), -1


PLANS = (
    Case("softmax", "rows beyond registers", long_rows, "online tile=1x", "softmax_block", dtypes=DTYPES),
    Case("log_softmax", "rows beyond registers", long_rows, "online tile=1x", "softmax_block"),
    Case("softmin", "rows beyond registers", long_rows, "online tile=1x", "softmax_block"),
    Case(
        "softmax",
        "columns beyond registers",
        lambda make: (make(700, 33, scale=3), 0),
        "online tile=32x",
        "softmax_inner",
    ),
    Case(
        "mm",
        "K in parts",
        # exact sums: of 4096 random numbers float64 is no reference for itself, in another order it is 60 ulp away
        lambda make: (make.grid(8, 4096), make.grid(4096, 16)),
        "identity split=",
        "workspace",
        dtypes=DTYPES,
    ),
    Case("mm", "tiles with edges", lambda make: (make(70, 129), make(129, 133)), "split=1", "split 1", dtypes=DTYPES),
    Case(
        "linear-silu",
        "the epilogue after parts of K",
        lambda make: (make(8, 4096), make(16, 4096, scale=1 / 64), make(16)),
        "silu split=",
        "workspace",
        lambda make: {"activation": "silu", "residual": make(8, 16)},
    ),
    Case(
        "linear-gelu",
        "the bias's gradient in chunks of rows",
        lambda make: (make(1000, 5), make(7, 5), make(7)),
        "gelu tile=128x8 rows=128 chunks=8",
        "rows per part 250",
        lambda make: {"activation": "gelu"},
    ),
    Case(
        "prelu",
        "weights' gradient in chunks of rows",
        lambda make: (make(300, 33), make(33)),
        "chunks=19",
        "prelu_columns",
    ),
    Case(
        "prelu",
        "a transposed input turns the tile",
        lambda make: (make(33, 300).t(), make(33)),
        "tile=512x2",
        "prelu_rows",
    ),
    Case(
        "matmul", "batches become rows", lambda make: (make(3, 4, 5, 8), make(8, 9)), "M=60 N=9 K=8 batch=1", "split 1"
    ),
    Case(
        "matmul",
        "batches that do not merge",
        lambda make: (make(3, 4, 4, 5, 8)[:, :, ::2], make(1, 4, 1, 8, 9).expand(3, 4, 2, 8, 9)),
        "M=5 N=9 K=8 batch=24",
        "grid 1",
    ),
)


@pytest.mark.parametrize(
    "case, dtype",
    [(c, d) for c in PLANS for d in c.dtypes],
    ids=lambda v: f"{v.spec}: {v.why}" if isinstance(v, Case) else str(v),
)
@pytest.mark.backends("triton", "cuda")
def test_plans(case: Case, dtype: torch.dtype, on: Target, seed: int) -> None:
    s, make = spec(case.spec), Maker.seeded(seed, case.spec, case.why, dtype=dtype, device=on.device)
    want = expected_of(s, Sample(case.why, case.args(make), case.kwargs(make)), make)
    with neurokern.trace() as launches:
        wrong = judge(s, want, 1)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)
    plans = {f"{row.kernel} {row.plan}" for row in launches}
    assert any(getattr(case, on.backend) in p for p in plans), plans


@pytest.mark.parametrize(
    ("shape", "streams"),
    [
        ((1, 768, 3072), True),
        ((4, 768, 768), True),
        ((1, 768, 256), False),  # rows of 1 KiB are no streams
        ((1, 64, 1024), False),  # b stays in the second cache
    ],
)
def test_few_rows_read_a_wide_matrix_as_streams(shape: tuple[int, int, int], streams: bool) -> None:
    """And the result is right: sums of every 16 rows of b are taken up again by the next 16."""
    m, k, n = shape
    a, b, bias = torch.randn(m, k), torch.randn(k, n), torch.randn(n)
    with neurokern.trace() as launches:
        y = F.addmm(bias, a, b)
    right = torch.addmm(bias.double(), a.double(), b.double())
    assert torch.allclose(y.double(), right, rtol=1e-5, atol=1e-4)
    (launch,) = launches
    if "avx512" in launch.kernel:
        assert (" kc 16 " in launch.plan) == streams, launch.plan
