"""The Triton kernels in the interpreter: plans, layouts and lengths that the samples of the specs do not reach.

Plans are judged as every sample is, by the call that users make. The launch functions are called themselves where no
public call can ask for it: in a process of its own, as TRITON_INTERPRET decides when kernels are decorated.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import neurokern
import pytest
import torch
import torch.nn.functional as F
from neurokern.testing import Maker, Sample, Target, judge, spec
from neurokern.testing.run import expected_of
from torch import Tensor

pytest.importorskip("triton")
pytestmark = pytest.mark.slow
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")

if INTERPRETED:
    from neurokern.kernels.triton import activation, matmul
    from neurokern.kernels.triton._functions import ACTIVATIONS

    NAMES = [a[0] for a in ACTIVATIONS]
else:

    def test_the_rest(in_a_process_of_its_own):
        in_a_process_of_its_own("1")


needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="runs in the process started above")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INF, NAN = float("inf"), float("nan")
SEED = int(os.environ["NEUROKERN_SEED"])


@dataclass(frozen=True)
class Case:
    """Arguments of a spec's op for which Triton's plan is another, and words of that plan in the trace."""

    spec: str
    why: str
    args: Callable[[Maker], tuple[Any, ...]]
    plan: str
    kwargs: Callable[[Maker], dict[str, Any]] = lambda make: {}
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)


def long_rows(make: Maker) -> tuple[Any, ...]:
    return make(2, 9000, scale=3), -1


PLANS = (
    Case(
        "softmax", "rows beyond registers", lambda make: (make(2, 9000, scale=3), -1), "online tile=1x", dtypes=DTYPES
    ),
    Case("log_softmax", "rows beyond registers", lambda make: (make(2, 9000, scale=3), -1), "online tile=1x"),
    Case("softmin", "rows beyond registers", lambda make: (make(2, 9000, scale=3), -1), "online tile=1x"),
    Case("softmax", "columns beyond registers", lambda make: (make(700, 33, scale=3), 0), "online tile=32x"),
    Case("mm", "K in parts", lambda make: (make(8, 4096), make(4096, 16)), "identity split=", dtypes=DTYPES),
    Case("mm", "tiles with edges", lambda make: (make(70, 129), make(129, 133)), "split=1", dtypes=DTYPES),
    Case(
        "linear-silu",
        "the epilogue after parts of K",
        lambda make: (make(8, 4096), make(16, 4096, scale=1 / 64), make(16)),
        "silu split=",
        lambda make: {"activation": "silu", "residual": make(8, 16)},
    ),
    Case(
        "linear-gelu",
        "the bias's gradient in chunks of rows",
        lambda make: (make(1000, 5), make(7, 5), make(7)),
        "gelu tile=128x8 rows=128 chunks=8",
        lambda make: {"activation": "gelu"},
    ),
    Case("prelu", "weights' gradient in chunks of rows", lambda make: (make(300, 33), make(33)), "chunks=19"),
    Case("prelu", "a transposed input turns the tile", lambda make: (make(33, 300).t(), make(33)), "tile=512x2"),
    Case("matmul", "batches become rows", lambda make: (make(3, 4, 5, 8), make(8, 9)), "M=60 N=9 K=8 batch=1"),
    Case(
        "matmul",
        "batches that do not merge",
        lambda make: (make(3, 4, 4, 5, 8)[:, :, ::2], make(1, 4, 1, 8, 9).expand(3, 4, 2, 8, 9)),
        "M=5 N=9 K=8 batch=24",
    ),
)


@pytest.mark.parametrize(
    "case, dtype",
    [(c, d) for c in PLANS for d in c.dtypes],
    ids=lambda v: f"{v.spec}: {v.why}" if isinstance(v, Case) else str(v),
)
def test_plans(case: Case, dtype: torch.dtype, seed: int) -> None:
    target = Target("triton")
    if why := target.missing():
        pytest.skip(why)
    s, make = spec(case.spec), Maker.seeded(seed, case.spec, case.why, dtype=dtype, device=target.device)
    want = expected_of(s, Sample(case.why, case.args(make), case.kwargs(make)), make)
    with target.active(), neurokern.trace() as launches:
        wrong = judge(s, want, 1)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)
    assert any(case.plan in row.plan for row in launches), {row.plan for row in launches}


@pytest.fixture
def draw():
    """Normal values of a shape and dtype, from the seed of this run."""
    generator = torch.Generator().manual_seed(SEED)
    return lambda dtype, *shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def nans(like: Tensor) -> Tensor:
    return torch.full(like.shape, NAN, dtype=like.dtype)


@needs_interpreter
def test_selected_gradients():
    """Where torch selects zero, an infinite gradient does not turn into NaN."""
    x = torch.tensor([-1.0, 0.0, 7.0])
    for name in ("relu", "relu6", "threshold", "squared_relu"):
        out = nans(x)
        activation.unary_backward(out, torch.full_like(x, INF), x, NAMES.index(name), 0.0, 0.0)
        assert out[:2].tolist() == [0.0, 0.0], name


LAYOUTS = {
    "dense": lambda x: x,
    "rows of a wider matrix, aligned": lambda x: x[:, :, :, :16],
    "odd columns": lambda x: x[..., 1::2],
    "permuted": lambda x: x.permute(2, 0, 3, 1),
    "one element repeated": lambda x: x[0, 0, 0, 0].expand(4, 5),
    "a dimension repeated": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "offset": lambda x: x.reshape(-1)[7:1000],
    "scalar": lambda x: x[1, 1, 1, 1],
    "empty": lambda x: x[:0],
}


@needs_interpreter
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts(draw, layout, dtype):
    """Strided in, strided out, and in place."""
    x = LAYOUTS[layout](draw(dtype, 3, 4, 5, 32))
    backing = torch.full((*x.shape, 2), NAN, dtype=dtype)
    out = backing[..., 0]
    said: list[tuple[str, str]] = []
    relu = NAMES.index("leaky_relu")
    activation.unary(out, x, relu, 0.25, 0.0, record=lambda *a: said.append(a))
    assert torch.equal(out, F.leaky_relu(x, 0.25))
    assert backing[..., 1].isnan().all(), "wrote between its elements"
    assert [k for k, _ in said] == (["unary_kernel"] if x.numel() else [])
    same = x.clone()
    activation.unary(same, same, relu, 0.25, 0.0)
    assert torch.equal(same, out)


def far_apart(values: Tensor, *strides: int) -> Tensor:
    """``values`` with these strides, in memory of which only the elements are ever touched."""
    reach = sum((n - 1) * s for n, s in zip(values.shape, strides, strict=True)) + 1
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    memory = mmap.mmap(-1, reach * values.element_size(), flags=flags)
    return torch.frombuffer(memory, dtype=values.dtype).as_strided(values.shape, strides).copy_(values)


@needs_interpreter
@pytest.mark.parametrize("stride", [2**31, 2**31 + 5], ids=["aligned", "odd"])
def test_rows_beyond_32_bits(draw, stride):
    """A stride of 2^31 fits 32 bits divided by the unit of an aligned load, and not once it is multiplied again."""
    values = draw(torch.bfloat16, 2, 64)
    out = nans(values)
    activation.unary(out, far_apart(values, stride, 1), NAMES.index("relu"), 0.0, 0.0)
    assert torch.equal(out, values.relu())


@needs_interpreter
@pytest.mark.parametrize("count", [2**31, 2**31 + 1], ids=["even", "odd"])
def test_lengths_beyond_32_bits(draw, monkeypatch, count):
    """The first of the programs that would do 2^31 elements, whose length comes divided by 16."""
    launch = activation.launch
    monkeypatch.setattr(activation, "launch", lambda kernel, grid, *rest: launch(kernel, 1, *rest))
    values = draw(torch.bfloat16, 1000)
    x, out = (far_apart(values[:1].expand(2), count - 1).as_strided((count,), (1,)) for _ in range(2))
    x[:1000] = values
    out[:1000] = NAN
    activation.unary(out, x, NAMES.index("relu"), 0.0, 0.0)
    assert torch.equal(out[:1000], values.relu())


@needs_interpreter
def test_steps_of_a_product_beyond_32_bits(draw):
    """K is walked in steps whose distance in memory, and a bias in columns whose distance, need 64 bits."""
    a, b, bias = draw(torch.bfloat16, 3, 200), draw(torch.bfloat16, 200, 5), draw(torch.bfloat16, 5)
    exact = a.double() @ b.double() + bias.double()
    for far in ((far_apart(a, 1, 2**26), b, bias), (a, far_apart(b, 2**26, 1), bias), (a, b, far_apart(bias, 2**30))):
        out = torch.full((3, 5), NAN, dtype=a.dtype)
        matmul.matmul(out, *far, None, None, 0, 0.0, 0.0, 1.0, 1.0)
        torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-4)


@needs_interpreter
def test_beta_zero_leaves_the_residual_unread(draw):
    a, out = draw(torch.float32, 4, 4), torch.full((4, 4), NAN)
    matmul.matmul(out, a, a, None, torch.full((4, 4), NAN), None, 0, 0.0, 0.0, 1.0, 0.0)
    torch.testing.assert_close(out, a @ a)
