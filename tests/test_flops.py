"""torch.utils.flop_counter counts our products as it counts torch's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import neurokern.functional as F
import neurokern.nn as ours
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

TF = torch.nn.functional


def total(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), requires_grad=True)


def mlp(nn: Any) -> torch.nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 24, bias=False), nn.GELU(), nn.Linear(24, 4))


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)], ids=["rows", "batches of rows"])
def test_an_mlp_forward_and_backward_counts_as_torchs(shape):
    def step(nn):
        return lambda: mlp(nn)(rand(*shape)).sum().backward()

    rows = torch.Size(shape[:-1]).numel()
    assert total(step(ours)) == total(step(torch.nn)) == 3 * 2 * rows * (8 * 16 + 16 * 24 + 24 * 4)


def test_a_gradient_that_nobody_wants_is_not_counted():
    x = rand(5, 8).detach()
    assert total(lambda: ours.Linear(8, 16)(x).sum().backward()) == 2 * (2 * 5 * 8 * 16)


@pytest.mark.parametrize(
    "our,their,shapes",
    [
        (F.mm, torch.mm, [(5, 8), (8, 3)]),
        (F.addmm, torch.addmm, [(3,), (5, 8), (8, 3)]),
        (F.bmm, torch.bmm, [(4, 5, 8), (4, 8, 3)]),
        (F.matmul, torch.matmul, [(2, 1, 5, 8), (4, 8, 3)]),
        (F.matmul, torch.matmul, [(2, 5, 8), (8, 3)]),
        (lambda x, w, b: F.linear(x, w, b, activation="gelu"), lambda x, w, b: TF.gelu(TF.linear(x, w, b)),
         [(5, 8), (3, 8), (3,)]),
        (lambda x, w, b: F.conv2d(x, w, b, 2, 1), lambda x, w, b: TF.conv2d(x, w, b, 2, 1),
         [(2, 4, 9, 8), (6, 4, 3, 3), (6,)]),
        (lambda x, w: F.conv1d(x, w, dilation=2), lambda x, w: TF.conv1d(x, w, dilation=2), [(4, 9), (6, 4, 3)]),
        (lambda x, w, b: F.conv2d(x, w, b, padding=1, padding_mode="reflect", activation="relu"),
         lambda x, w, b: TF.conv2d(x, w, b, padding=1).relu(), [(2, 4, 9, 8), (6, 4, 3, 3), (6,)]),
        (lambda x, w: F.conv_transpose3d(x, w, None, 2, 1, 1), lambda x, w: TF.conv_transpose3d(x, w, None, 2, 1, 1),
         [(2, 4, 3, 4, 5), (4, 3, 2, 3, 3)]),
    ],
    ids=["mm", "addmm", "bmm", "broadcast batches", "batches of rows", "fused gelu", "conv2d", "conv1d",
         "fused conv2d", "conv_transpose3d"],
)  # fmt: skip
def test_products_count_as_torchs_with_their_gradients(our, their, shapes):
    def step(f):
        return lambda: f(*(rand(*s) for s in shapes)).sum().backward()

    assert total(step(our)) == total(step(their)) > 0


def test_groups_count_the_channels_of_their_own():
    """torch counts those of the weight's gradient as if each result had all channels."""
    run = lambda f: f.conv2d(rand(2, 4, 9, 8), rand(6, 2, 3, 3), groups=2)  # noqa: E731
    assert total(lambda: run(F)) == total(lambda: run(TF)) == 2 * (2 * 7 * 6) * (6 * 2 * 9)
    assert total(lambda: run(F).sum().backward()) == 3 * total(lambda: run(F))


@pytest.mark.parametrize(
    "first,then", [("neurokern", "torch.utils.flop_counter"), ("torch.utils.flop_counter", "neurokern")]
)
def test_the_order_of_imports_does_not_matter(first, then):
    code = (
        f"import torch, {first}, {then}, sys; from torch.utils.flop_counter import flop_registry as known; "
        "print(sum('neurokern' in str(op) for op in known), torch.ops.neurokern.linear in known)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "23 True\n"


def test_importing_neurokern_does_not_import_the_counter():
    code = "import sys, neurokern; print('torch.utils.flop_counter' in sys.modules, 'triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
