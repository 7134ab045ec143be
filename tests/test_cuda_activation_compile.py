"""What the compiler made of the activation kernels: registers, spills, and 128-bit loads and stores in machine code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from neurokern import _C

FOLDER = Path(_C.cuda_info()["kernel_dir"])
TYPES = ("f32", "f64", "f16", "bf16")
WIDTH = {"f32": 4, "f64": 2, "f16": 8, "bf16": 8}  # elements of a 16-byte unit

# kernel -> most registers: 80 keep three blocks of 256 threads on an SM, 128 two; 64 is what 1024 threads may have
ELEMENTWISE = {  # and inputs, whose units are all asked for before the first is used
    "activation_unary": 1,
    "activation_unary_backward": 2,
    "activation_unary_backward2": 3,
    "activation_unary_backward_from_output": 2,
    "activation_unary_backward2_from_output": 3,
    "activation_gated": 2,
    "activation_gated_backward": 3,
    "activation_prelu": 2,
    "activation_prelu_backward": 3,
}
COLUMNS = {"matmul_bias_backward": 2, "matmul_column_sum": 1, "activation_prelu_columns": 3}
SOFTMAX = {
    "softmax_warp2": 64,
    "softmax_warp8": 80,
    "softmax_warp32": 128,
    "softmax_block16": 64,
    "softmax_block32": 64,
    "softmax_long": 64,
    "softmax_inner_unit": 128,
    "softmax_inner_element": 128,
    "softmax_backward_warp2": 64,
    "softmax_backward_warp8": 80,
    "softmax_backward_warp32": 128,
    "softmax_backward_block16": 64,
    "softmax_backward_long": 64,
    "softmax_backward_inner_unit": 128,
    "softmax_backward_inner_element": 128,
}
NORMALIZATION = {
    "normalization_warp2": 64,
    "normalization_warp8": 80,
    "normalization_warp32": 128,
    "normalization_block16": 64,
    "normalization_long": 64,
    "normalization_backward_warp2": 64,
    "normalization_backward_warp8": 80,
    "normalization_backward_warp32": 128,
    "normalization_backward_block16": 64,
    "normalization_backward_long": 64,
    "normalization_weight": 128,
    "normalization_bias": 128,
}
OTHERS = {"activation_prelu_rows": 128, "elementwise_finish": 64, "elementwise_uniform": 32}
REGISTERS = dict.fromkeys(ELEMENTWISE, 80) | dict.fromkeys(COLUMNS, 128) | SOFTMAX | NORMALIZATION | OTHERS
FATBINS = (
    "activation_unary",
    "activation_gated",
    "activation_prelu",
    "elementwise_finish",
    "elementwise_uniform",
    "matmul_bias_backward",
    "softmax_rows",
    "softmax_inner",
    "normalization_rows",
    "normalization_columns",
)

pytestmark = pytest.mark.skipif(not (FOLDER / "softmax_rows.fatbin").exists(), reason="this build has no CUDA kernels")


def ahead(inputs: int) -> int:
    return 4 if inputs == 1 else 2


@cache
def resources() -> list[dict]:
    table = json.loads((FOLDER / "resources.json").read_text())
    return [row for name in FATBINS for row in table[name]]


def disassembler() -> str | None:
    found = shutil.which("cuobjdump")
    if found is None:
        try:
            import triton
        except ImportError:
            return None
        beside = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        found = str(beside) if beside.exists() else None
    return found


@cache
def instructions(fatbin: str) -> dict[str, Counter]:
    """Machine instructions of each kernel of a fatbin, counted by mnemonic over all architectures it holds."""
    tool = disassembler()
    if tool is None:
        pytest.skip("no cuobjdump on this machine")
    path = Path(tool).parent
    command = [tool, "-sass", str(FOLDER / f"{fatbin}.fatbin")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": f"{path}:/usr/bin:/bin"}, check=True)
    kernels: dict[str, Counter] = {}
    arch = name = ""
    for line in done.stdout.splitlines():
        if m := re.match(r"arch = (\w+)", line):
            arch = m[1]
        elif m := re.search(r"Function : (\w+)", line):
            name = f"{m[1]} {arch}"
            kernels[name] = Counter()
        elif m := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]+)", line):
            kernels[name][m[1]] += 1
    return kernels


def test_every_kernel_is_there() -> None:
    rows = resources()
    architectures = {row["arch"] for row in rows}
    expected = {(f"{k}_{t}", a) for k in REGISTERS for t in TYPES for a in architectures}
    assert {(row["kernel"], row["arch"]) for row in rows} == expected


def test_no_spills_and_registers_as_planned() -> None:
    for row in resources():
        kind = row["kernel"].rpartition("_")[0]
        assert row["stack"] == row["spill_stores"] == row["spill_loads"] == 0, row
        assert row["registers"] <= REGISTERS[kind], row


@pytest.mark.parametrize("fatbin", FATBINS)
def test_no_local_memory(fatbin: str) -> None:
    for kernel, counts in instructions(fatbin).items():
        local = [i for i in counts if i.startswith(("LDL", "STL"))]
        assert not local, f"{kernel}: {local}"
        generic = [i for i in counts if re.match(r"(LD|ST)(\.|$)", i)]
        assert not generic, f"{kernel}: address space not known: {generic}"


def test_units_move_by_128_bits() -> None:
    """All units ahead are loaded, one load each, and each output of a unit is stored by one instruction."""
    for fatbin in ("activation_unary", "activation_gated", "activation_prelu", "matmul_bias_backward"):
        for kernel, counts in instructions(fatbin).items():
            kind = kernel.split()[0].rpartition("_")[0]
            inputs = (ELEMENTWISE | COLUMNS).get(kind)
            if inputs is None:
                continue
            assert counts["LDG.E.128"] == inputs * ahead(inputs), kernel
            assert counts["STG.E.128"] == (2 if kind == "activation_gated_backward" else 1), kernel


def test_softmax_rows_move_by_128_bits() -> None:
    for kernel, counts in instructions("softmax_rows").items():
        name, _, dtype = kernel.split()[0].removeprefix("softmax_").rpartition("_")
        kept = name.removeprefix("backward_").removeprefix("warp").removeprefix("block")
        if not kept.isdigit():
            continue
        values = int(kept) // (2 if dtype == "f64" else 1)
        units = values // WIDTH[dtype] if min(values, 8) % WIDTH[dtype] == 0 else 0
        inputs = 2 if name.startswith("backward") else 1
        assert counts["LDG.E.128"] == inputs * units, kernel
        assert counts["STG.E.128"] == units, kernel
