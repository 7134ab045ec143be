"""With ``torch.set_flush_denormal(True)``: conversions of f16 keep its subnormals, and the emulator is a GPU still."""

from __future__ import annotations

from collections.abc import Iterator

import neurokern
import neurokern.functional as F
import pytest
import torch

LEAST = 2.0**-24  # f16's


@pytest.fixture(autouse=True)
def flushing() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor can't be told to flush")
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def subnormals() -> torch.Tensor:
    """Every subnormal of f16, and the numbers around them, with both signs."""
    x = torch.arange(0x800, dtype=torch.int16).view(torch.float16)
    return torch.cat((x, -x))


@pytest.mark.backends("cpu", "cuda")
def test_f16_keeps_its_subnormals(on, subnormals: torch.Tensor) -> None:
    x = subnormals.to(on.device)
    steps = (x.view(torch.int16) & 0x7FFF).double()
    values = torch.where(x.view(torch.int16) < 0, -steps, steps)
    small = steps < 0x400
    assert torch.equal(F.relu(x)[small], (values.clamp(min=0) * LEAST).half()[small])
    # a product reads, sums and writes them
    ones = x.new_ones(1, 1)
    assert torch.equal(F.matmul(x[:, None], ones)[small, 0], (values * LEAST).half()[small])
    doubled = F.matmul(x[:, None].expand(-1, 2), ones.expand(2, 1))[:, 0]
    assert torch.equal(doubled[small], (values * 2 * LEAST).half()[small])
    # half of an odd one is a tie
    assert torch.equal(F.leaky_relu(-x.abs(), 0.5)[small], (steps * -0.5 * LEAST).half()[small])


def test_the_emulator_flushes_what_its_kernels_flush() -> None:
    bits = torch.tensor([1, 2, 3, 1 << 20, (1 << 23) - 1], dtype=torch.int32)
    x = bits.view(torch.float32)
    with neurokern.emulate():
        halved = F.leaky_relu(-x, 0.5)
        same = F.matmul(x[:, None], torch.ones(1, 1))
    assert (-halved).view(torch.int32).tolist() == [0, 1, 2, 1 << 19, 1 << 22]
    assert torch.equal(same[:, 0].view(torch.int32), bits)
