"""The machine code of the CUDA matmul kernels: registers, spills, and the instructions that make them fast."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from neurokern import _C

FOLDER = Path(_C.__file__).parent / "_cuda"
pytestmark = pytest.mark.skipif(not (FOLDER / "resources.json").is_file(), reason="this build has no CUDA kernels")

REGISTERS = 65536  # of a multiprocessor


@functools.cache
def resources() -> list[dict]:
    table = json.loads((FOLDER / "resources.json").read_text())
    return [dict(row, fatbin=name) for name, rows in table.items() if name.startswith("matmul_") for row in rows]


@functools.cache
def tools() -> str | None:
    """A folder with cuobjdump: the machine's, or the one that Triton's package carries."""
    if found := shutil.which("cuobjdump"):
        return str(Path(found).parent)
    spec = find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "backends" / "nvidia" / "bin"
    return str(folder) if (folder / "cuobjdump").is_file() else None


@functools.cache
def machine_code(fatbin: str) -> dict[tuple[str, str], Counter]:
    """How often each instruction, with its modifiers, occurs in each kernel: {(arch, kernel): counts}."""
    folder = tools()
    if folder is None:
        pytest.skip("no cuobjdump on this machine")
    text = subprocess.run(
        [f"{folder}/cuobjdump", "-sass", str(FOLDER / f"{fatbin}.fatbin")],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    code: dict[tuple[str, str], Counter] = {}
    arch = kernel = ""
    for line in text.splitlines():
        if m := re.match(r"\s*arch = (\w+)", line):
            arch = m[1]
        elif m := re.match(r"\s*Function : (\w+)", line):
            kernel = m[1]
            code[arch, kernel] = Counter()
        elif m := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", line):
            code[arch, kernel][m[1]] += 1
    return {at: counts for at, counts in code.items() if at[1].startswith("matmul_")}


def count(counts: Counter, prefix: str) -> int:
    return sum(number for name, number in counts.items() if name.startswith(prefix))


def fatbins() -> list[str]:
    return sorted(set(_C.matmul_kernels().values()))


def test_nothing_spills() -> None:
    spilling = [
        row
        for row in resources()
        for part in [row, *row.get("callees", {}).values()]
        if part.get("stack") or part.get("spill_stores") or part.get("spill_loads")
    ]
    assert spilling == []


def test_registers_let_the_planned_blocks_run_together() -> None:
    """The budget that the plan counts on: threads x registers x blocks fit the register file."""
    plans = {}
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        for a in (True, False):
            for b in (True, False):
                for plan in _C.matmul_plan(512, 512, 512, dtype, tf32=True, a=(a, 16), b=(b, 16), all=True):
                    plans[plan["kernel"]] = plan
    planned = [row for row in resources() if row["kernel"] in plans]
    assert {row["kernel"] for row in planned} == set(plans)
    for row in planned:
        plan = plans[row["kernel"]]
        allocated = -(-row["registers"] // 8) * 8 * plan["threads"]
        assert allocated * plan["blocks"] <= REGISTERS, (row, plan["blocks"])


@pytest.mark.parametrize("fatbin", fatbins())
def test_no_local_memory(fatbin: str) -> None:
    for at, counts in machine_code(fatbin).items():
        assert count(counts, "LDL") == count(counts, "STL") == 0, at


@pytest.mark.parametrize("element", ["bf16", "f16"])
def test_tensor_cores_fed_by_ldmatrix_and_asynchronous_copies(element: str) -> None:
    for (arch, kernel), counts in machine_code(f"matmul_mma_{element}").items():
        at = f"{arch} {kernel}"
        assert count(counts, "HMMA.16816.F32") >= 4, at
        assert count(counts, "LDSM.16.M") >= 2, at
        # .MT is the transposed form, for operands whose outer index is contiguous.
        a, b = re.search(r"_([nt])([nt])_", kernel).groups()
        assert (count(counts, "LDSM.16.MT") > 0) == (a == "t" or b == "n"), at
        assert any(name.startswith("LDGSTS") and ".BYPASS" in name and ".128" in name for name in counts), at
        assert count(counts, "STG.E.64") > 0, at  # four 16-bit results at once


def test_tf32_runs_on_the_tensor_cores() -> None:
    for at, counts in machine_code("matmul_mma_tf32").items():
        assert count(counts, "HMMA.1688.F32.TF32") > 0, at
        assert any(name.startswith("LDGSTS") and ".128" in name for name in counts), at
        assert count(counts, "STG.E.128") > 0, at


def test_f64_runs_on_the_tensor_cores() -> None:
    for at, counts in machine_code("matmul_mma_f64").items():
        assert count(counts, "DMMA.") > 0, at
        assert count(counts, "LDGSTS") > 0, at


def test_f32_keeps_the_multipliers_busy() -> None:
    """Per step of k, 64 (32) multiply-adds for 4 (3) loads of 16 bytes."""
    for (arch, kernel), counts in machine_code("matmul_simt_f32").items():
        per_step = 64 if "128x128" in kernel else 32
        assert counts["FFMA"] >= 16 * per_step, (arch, kernel)
        assert counts["LDS.128"] >= 16 * (4 if per_step == 64 else 3), (arch, kernel)
        assert counts["FFMA"] / sum(counts.values()) > 0.25, (arch, kernel)
