"""The Triton kernels' launch functions, for layouts and lengths that no public call can ask of the interpreter.

Runs in a process of its own, as TRITON_INTERPRET decides when kernels are decorated.
"""

from __future__ import annotations

import mmap
import os

import pytest
import torch
import torch.nn.functional as F
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
