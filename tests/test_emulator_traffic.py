"""What every product and every elementwise kernel moves, by the emulator's exact counters: no bank conflict, each tile
of the operands read once, each sector of the result written once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import neurokern
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation
from torch import Tensor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
]

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64, "f32": torch.float32}
SECTOR = 32


def products() -> list[tuple[str, str]]:
    """(kernel, layout of A and B: t transposed); those that take any layout four times."""
    found = []
    for name in _C.matmul_kernels():
        if "reduce" in name:
            continue
        layout = re.search(r"_(nn|nt|tn|tt)_", name)
        found += [(name, x) for x in ([layout[1]] if layout else ["nn", "nt", "tn", "tt"])]
    return found


@contextmanager
def only(kernel: str) -> Iterator[None]:
    """One of the products alone may be chosen."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if "tf32" in kernel else "highest")
    _C.matmul_only(kernel)
    try:
        yield
    finally:
        _C.matmul_only("")
        torch.set_float32_matmul_precision(precision)


def product(kernel: str, layout: str, m: int, n: int, k: int) -> tuple[str, dict[str, int], torch.dtype]:
    """Plan and counters of one launch (with that of its second half where k is split)."""
    dtype = DTYPES.get(re.match(r"matmul_(?:mma|simt|plain)_([a-z]+\d+)", kernel)[1], torch.float32)
    a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    a, b = (t.mT.contiguous().mT if x == "t" else t for t, x in zip((a, b), layout, strict=True))
    with only(kernel), neurokern.emulate(), neurokern.trace() as launches:
        _C.matmul(a, b, None, "mm", 1.0, 1.0)
    assert launches[0].kernel == kernel
    return launches[0].plan, launches[0].counters, dtype


@pytest.mark.parametrize("kernel, layout", products())
def test_products_move_what_their_plan_says(kernel: str, layout: str) -> None:
    m, n, k = 256, 512, 128
    plan, c, dtype = product(kernel, layout, m, n, k)
    rows, columns, depth = map(int, re.search(r"tile (\d+)x(\d+)x(\d+)", plan).groups())
    splits, stages = int(re.search(r"split (\d+) ", plan)[1]), int(re.search(r"(\d+) stages?", plan)[1])
    tiles = (m // rows) * (n // columns)
    operands = tiles * (rows + columns) * k * dtype.itemsize
    # the shares of a split sum go to memory as they are added up, and are read once
    parts = splits * m * n * max(4, dtype.itemsize) if splits > 1 else 0
    assert c["bank conflicts"] == 0
    assert c["global bytes read"] == SECTOR * c["global sectors read"] == operands + parts
    assert c["global bytes written"] == SECTOR * c["global sectors written"] == m * n * dtype.itemsize + parts
    if "mma" in kernel:
        shape = {2: 16 * 8 * 16, 4: 16 * 8 * 8, 8: 8 * 8 * 4}[dtype.itemsize]
        assert c["matrix instructions"] == m * n * k // shape
    if "plain" not in kernel:
        # the ring is filled ahead: its last stages are zeros that are read from nowhere
        steps = k // splits // depth
        assert c["async bytes"] == operands * (steps + stages - 1) // steps


@pytest.mark.parametrize("kernel, layout", products())
def test_ragged_products_have_no_bank_conflicts(kernel: str, layout: str) -> None:
    """Copies of 8 and 4 bytes and of single elements, rows that begin anywhere."""
    for m, n, k in ((70, 60, 52), (70, 60, 50), (67, 61, 51)):
        plan, c, _ = product(kernel, layout, m, n, k)
        assert c["bank conflicts"] == 0, plan


N = 16384  # elements
Call = Callable[[Callable[[], Tensor]], object]
ELEMENTWISE: dict[str, tuple[int, int, Call]] = {  # tensors read and written, and the call with a maker of tensors
    "unary": (1, 1, lambda x: _C.unary(x(), "gelu", 0.0, 0.0)),
    "unary_backward": (2, 1, lambda x: _C.unary_backward(x(), x(), "gelu", 0.0, 0.0)),
    "unary_backward2": (3, 1, lambda x: _C.unary_backward2(x(), x(), x(), "gelu", 0.0, 0.0, (False, True))),
    "unary_backward_from_output": (2, 1, lambda x: _C.unary_from_output_backward(x(), x(), "tanh", 0.0, 0.0)),
    "unary_backward2_from_output": (
        3,
        1,
        lambda x: _C.unary_from_output_backward2(x(), x(), x(), "tanh", 0.0, 0.0, (False, True)),
    ),
    "gated": (2, 1, lambda x: _C.glu(torch.cat((x(), x()), -1), -1, "swiglu")),
    "gated_backward": (3, 2, lambda x: _C.glu_backward(x(), torch.cat((x(), x()), -1), -1, "swiglu")),
    "prelu": (2, 1, lambda x: _C.rrelu(x(), x())),
    "prelu_backward": (3, 1, lambda x: _C.rrelu_backward(x(), x(), x(), (True, False))),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_kernels_touch_each_sector_once(name: str, dtype: str) -> None:
    """Dense tensors and rows of a wider tensor: at most 1.05 times the least."""
    reads, writes, call = ELEMENTWISE[name]
    for shape, view in (((N,), (...,)), ((128, 256), (slice(None), slice(0, 128)))):
        with neurokern.emulate(), neurokern.trace() as launches:
            call(lambda shape=shape, view=view: torch.randn(shape).to(DTYPES[dtype])[view])
        (launch,) = launches
        assert launch.kernel == f"activation_{name}_{dtype}"
        least = N * DTYPES[dtype].itemsize // SECTOR
        assert reads * least <= launch.counters["global sectors read"] <= 1.05 * reads * least
        assert writes * least <= launch.counters["global sectors written"] <= 1.05 * writes * least
        assert launch.counters["bank conflicts"] == 0


def test_every_elementwise_kernel_is_here() -> None:
    table = json.loads((Path(_C.cuda_info()["kernel_dir"]) / "resources.json").read_text())
    files = ("activation_unary", "activation_gated", "activation_prelu")
    built = {row["kernel"].rsplit("_", 1)[0].removeprefix("activation_") for f in files for row in table[f]}
    assert {k for k in built if not k.endswith(("_rows", "_columns"))} == set(ELEMENTWISE)
