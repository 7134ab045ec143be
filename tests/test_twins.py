"""Comparing two devices on the same snippets: the emulator stands in for the GPU, once faithful, once lying."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from neurokern.ops import emulation
from neurokern.testing.ptx import HEADER, Device, DeviceError, emulator, run_elementwise
from neurokern.testing.twins import Difference, compared, disagreement, readable

pytestmark = pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing()))


class Other(Device):
    """The emulator as a second device, whose results may be touched up on the way back."""

    def __init__(self, lie=lambda bits: bits, refuses: int = 0) -> None:
        super().__init__(str(emulation.LIBRARY))
        self.lie, self.refuses, self.launches = lie, refuses, 0

    def launch(self, text, arguments, **options) -> None:
        self.launches += 1
        if self.refuses:
            raise DeviceError(self.refuses, "not here")
        super().launch(text, arguments, **options)
        arguments[0][...] = self.lie(arguments[0])


X = np.random.default_rng(7).uniform(0.1, 3.0, 1000).astype(np.float32).view(np.uint32)


def nudged(by: int):
    """One element, the last bits of it changed."""

    def lie(bits: np.ndarray) -> np.ndarray:
        bits = bits.copy()
        bits[537] += by
        return bits

    return lie


def test_devices_that_agree(tmp_path: Path) -> None:
    other = Other()
    with compared(other, tmp_path / "record", "this test"):
        run_elementwise("add.rn.f32 {d}, {a}, {a};", "f32", [("f32", X)])
        run_elementwise("popc.b32 {d}, {a};", "u32", [("b32", X)])
    assert other.launches == 2
    assert emulator() is not other
    (line,) = (json.loads(text) for text in (tmp_path / "record").read_text().splitlines())
    assert line["test"] == "this test"
    assert line["device"].startswith("neurokern emulator, driver 13.0")
    assert line["launches"] == 2
    assert line["bytes equal"] == 4 * 4 * len(X)  # result and operand, twice
    assert line["bytes within bounds"] == 0
    assert line["differences"] == []


@pytest.mark.parametrize("instruction", ["add.rn.f32 {d}, {a}, {a};", "sqrt.rn.f32 {d}, {a};", "add.u32 {d}, {a}, 1;"])
def test_one_bit_is_a_difference(instruction: str, tmp_path: Path) -> None:
    with compared(Other(nudged(1)), tmp_path / "record"), pytest.raises(Difference, match=r"argument 0: element 537"):
        run_elementwise(instruction, "f32", [("f32", X)])
    assert "element 537" in json.loads((tmp_path / "record").read_text())["differences"][0]


@pytest.mark.parametrize(
    "instruction, allowed",
    [("ex2.approx.f32", 2), ("rsqrt.approx.f32", 1), ("rcp.approx.ftz.f32", 1), ("tanh.approx.f32", 2**12)],
)
def test_approximations_have_the_bounds_of_the_isa(instruction: str, allowed: int) -> None:
    with compared(Other(nudged(allowed))) as twins:
        run_elementwise(f"{instruction} {{d}}, {{a}};", "f32", [("f32", X)])
    assert 0 < twins.counts["bytes within bounds"] <= 4
    with compared(Other(nudged(8 * allowed))), pytest.raises(Difference, match=r"element 537 is .*, allowed are"):
        run_elementwise(f"{instruction} {{d}}, {{a}};", "f32", [("f32", X)])


def test_what_the_other_cannot_load_is_noted(tmp_path: Path) -> None:
    with compared(Other(refuses=222), tmp_path / "record"):
        run_elementwise("add.u32 {d}, {a}, 1;", "u32", [("u32", X)])
    assert json.loads((tmp_path / "record").read_text())["refused"] == 1
    with compared(Other(refuses=700)), pytest.raises(DeviceError, match="not here"):
        run_elementwise("add.u32 {d}, {a}, 1;", "u32", [("u32", X)])


@pytest.mark.parametrize(
    "driver, isa", [(13010, "9.0"), (13000, "9.0"), (12080, "8.7"), (12060, "8.5"), (11080, "8.0")]
)
def test_older_drivers_get_older_ptx(driver: int, isa: str) -> None:
    class Old:
        def call(self, name: str, version) -> None:
            assert name == "cuDriverGetVersion"
            version._obj.value = driver

    text = readable(f"{HEADER}.visible .entry kernel() {{ ret; }}", Old())
    assert text.startswith(f".version {isa}\n.target sm_80\n")
    assert text.endswith(".visible .entry kernel() { ret; }")


def test_a_snippet_that_fails_here_is_not_tried_there() -> None:
    other = Other()
    text = ".visible .entry kernel(.param .u64 p) { .reg .b64 %o; mov.u64 %o, 64; st.global.u32 [%o], 1; ret; }"
    with compared(other), pytest.raises(DeviceError, match="out of bounds"):
        emulator().launch(text, [np.zeros(1, np.uint32)])
    assert other.launches == 0


@pytest.mark.slow
def test_the_instruction_tests_run_on_a_second_device(tmp_path: Path) -> None:
    """As `make gpu` runs them, with the emulator in the driver's place: a line of the record for each test."""
    record = tmp_path / "record"
    names = {"NEUROKERN_DRIVER": str(emulation.LIBRARY), "NEUROKERN_SNIPPETS": str(record)}
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | names
    file = Path(__file__).parent / "test_emulator_async.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "gpu", str(file)],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(text) for text in record.read_text().splitlines()]
    assert len(lines) > 20
    for line in lines:
        assert "[real" in line["test"]
        assert line["launches"] > 0
        assert line["bytes equal"] > 0
        assert line["bytes within bounds"] == line["refused"] == 0
        assert line["differences"] == []
    assert len({line["test"] for line in lines}) == len(lines)


def test_special_values_within_bounds() -> None:
    """NaN agrees with any NaN, infinity with itself alone, in every format."""
    inf = np.array([np.inf, np.nan, 1.0], np.float32)
    other = inf.copy()
    other[1] = -np.float32(np.nan)
    assert disagreement(inf, other, ("f32", 2**-22, 0.0)) is None
    assert disagreement(inf, other, None) is not None
    other[0] = 3e38
    assert "element 0" in disagreement(inf, other, ("f32", 2**-22, 0.0))
    half = np.array([0x3C00, 0x3C01], np.uint16)
    assert disagreement(half, half[::-1].copy(), ("f16", 2**-9, 0.0)) is None
    assert disagreement(half, half + np.uint16(8), ("f16", 2**-9, 0.0)) is not None
    assert disagreement(half, half + np.uint16(8), ("bf16", 2**-4, 0.0)) is None
