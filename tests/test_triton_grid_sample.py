"""The PTX that Triton compiles from kernels/triton/grid_sample.py runs on the emulator and gives torch's samples and
gradients. It compiles in a process of its own, where Triton does not interpret: this file run as a script."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from neurokern.backends import emulation

TF = torch.nn.functional
BOUND = {torch.float32: 4e-6, torch.float64: 1e-14, torch.bfloat16: 8e-3}
MODES = ((2, "bilinear"), (2, "nearest"), (2, "bicubic"), (3, "bilinear"), (3, "nearest"))
RULES = (("zeros", False), ("border", True), ("reflection", False), ("reflection", True))


def wrong(dtype: torch.dtype, dims: int, mode: str, padding: str, corners: bool) -> list[str]:
    """What is further from torch's float64 than the dtype explains."""
    from neurokern.kernels.triton import grid_sample as kernels
    from neurokern.testing.ptx import emulator
    from neurokern.testing.triton_ptx import triton_on

    x = torch.randn(1, 3, *(4, 5, 6)[:dims]).to(dtype)
    grid = (torch.randn(1, *(3, 4, 2)[:dims], dims) * 16).round().div(16).to(dtype)
    wide = x.double().requires_grad_(), grid.double().requires_grad_()
    y = TF.grid_sample(*wide, mode, padding, corners)
    g = torch.randn(y.shape).to(dtype)
    want = (y, *torch.autograd.grad(y, wide, g.double()))
    made = [torch.full(t.shape, float("nan"), dtype=dtype) for t in want]
    with triton_on(emulator(), 90):
        kernels.sample(made[0], x, grid, mode, padding, corners, False)
        kernels.image_gradient(made[1], g, grid, mode, padding, corners)
        kernels.grid_gradient(made[2], g, x, grid, mode, padding, corners)
    found = []
    for name, ours, theirs in zip(("samples", "image", "grid"), made, want, strict=True):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9)
        if not error <= BOUND[dtype]:
            found.append(f"{dtype} {dims} {mode} {padding} {corners} {name}: {float(error):.1e}")
    return found


@pytest.mark.slow
@pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))
def test_compiled_for_a_gpu() -> None:
    pytest.importorskip("triton")
    env = dict(os.environ) | {"TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", done.stdout


if __name__ == "__main__":
    torch.manual_seed(0)
    for dims, mode in MODES:
        for padding, corners in RULES:
            for line in wrong(torch.float32, dims, mode, padding, corners):
                print(line)
    for dtype in (torch.float64, torch.bfloat16):
        for line in wrong(dtype, 2, "bilinear", "reflection", False):
            print(line)
