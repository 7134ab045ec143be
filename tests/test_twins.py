"""Comparing two devices on the same snippets: the emulator stands in for the GPU, once faithful, once lying."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing import fragments, ptx
from neurokern.testing.ptx import HEADER, Device, DeviceError, emulator, run_elementwise
from neurokern.testing.twins import Difference, but_nan, compared, disagreement, readable, summary, sums

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
        result = arguments[0].array if isinstance(arguments[0], ptx.TensorMap) else arguments[0]
        result[...] = self.lie(result)


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
    # of each sort of launch some: one warp, four with large shared memory, clusters, maps made by the driver
    chosen = (
        "async or k16-bf16 or quads or (test_types and s8) or m8n32k16-bf16 or saturated_integers or from_halves or "
        "a_matrix_across or one_thread_against or TestClusters or TestImageToColumn or TestReplace or TestAsynchronous"
    )
    files = sorted(Path(__file__).parent.glob("test_emulator_*.py"))
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "gpu and not emulator_only", "-k", chosen]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(text) for text in record.read_text().splitlines()]
    assert len({line["test"].partition("::")[0] for line in lines}) == 11
    for line in lines:
        assert "[real" in line["test"]
        assert line["launches"] > 0
        assert line["bytes equal"] > 0
        assert line["bytes within bounds"] == line["refused"] == 0
        assert line["differences"] == []
    assert len({line["test"] for line in lines}) == len(lines)
    assert summary(record).startswith(f"{lines[0]['device']}: {len(lines)} tests, ")


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


def test_which_nan_may_be_open() -> None:
    one = np.array([1.0, np.nan, 0.0, np.inf], np.float32)
    two = one.copy()
    two.view(np.uint32)[1] ^= 0x80001234
    assert disagreement(one, two, but_nan("f32")) is None
    for at, other in ((0, np.float32(1 + 2**-23)), (2, np.float32(-0.0)), (3, np.float32(np.nan))):
        wrong = two.copy()
        wrong[at] = other
        assert f"element {at} " in disagreement(one, wrong, but_nan("f32"))


PRODUCT = """.visible .entry kernel(.param .u64 c, .param .u64 a, .param .u64 b) {
  .reg .b32 %t, %a<4>, %b<2>, %c<4>; .reg .b64 %p, %q, %r; mov.u32 %t, %tid.x;
  ld.param.u64 %p, [a]; mad.wide.u32 %p, %t, 16, %p; ld.param.u64 %q, [b]; mad.wide.u32 %q, %t, 8, %q;
  ld.param.u64 %r, [c]; mad.wide.u32 %r, %t, 16, %r;
  ld.global.v4.b32 {%a0, %a1, %a2, %a3}, [%p]; ld.global.v2.b32 {%b0, %b1}, [%q];
  ld.global.v4.b32 {%c0, %c1, %c2, %c3}, [%r];
  mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%c0, %c1, %c2, %c3}, {%a0, %a1, %a2, %a3}, {%b0, %b1},
    {%c0, %c1, %c2, %c3};
  st.global.v4.b32 [%r], {%c0, %c1, %c2, %c3}; ret;
}"""


@pytest.mark.parametrize("whole", [False, True], ids=["random", "whole"])
def test_a_lie_about_tensor_cores_is_found(whole: bool) -> None:
    """One bit of a sum of whole numbers; of others more than the order of addition makes; two that changed places."""
    generator = np.random.default_rng(3)
    (a, x), (b, y) = (fragments.draw("f16", (n, 16), generator, whole) for n in (16, 8))
    registers = fragments.left(a, 16), fragments.right(b, 16)

    def run(lie) -> dict[str, int]:
        c = np.zeros((32, 4), np.uint32)
        with compared(Other(lie)) as both:
            within = sums("f16", "f32", x, y.T, places=fragments.total_places(16, False))
            assert (within is None) == whole
            emulator().launch(PRODUCT, [c, *registers], within=within)
        return both.counts

    def changed(by: int):
        def lie(bits: np.ndarray) -> np.ndarray:
            bits = bits.copy()
            at = tuple(np.argwhere(bits & 0x7FFFFFFF > 0x3F800000)[5])
            bits[at] += by
            return bits

        return lie

    assert run(lambda bits: bits)["bytes within bounds"] == 0
    if not whole:
        assert 0 < run(changed(2))["bytes within bounds"] <= 4
    for lie in (changed(1 if whole else 2**12), lambda bits: bits[:, [1, 0, 2, 3]], np.flipud):
        with pytest.raises(Difference, match="argument 0: element"):
            run(lie)


def tensor_cores(a: np.ndarray, b: np.ndarray, c: np.ndarray, kept: int, block: int) -> np.ndarray:
    """Blocks of products and the sum so far, each cut off `kept` bits behind the point of the largest."""
    for k in range(0, a.shape[1], block):
        terms = np.concatenate([a[:, None, k : k + block] * b.T[None, :, k : k + block], c[..., None]], 2)
        step = 2.0 ** (np.frexp(np.abs(terms).max(2))[1] - 1 - kept)
        c = (np.trunc(terms / step[..., None]) * step[..., None]).sum(2)
        step = 2.0 ** (np.frexp(c)[1] - 1 - min(kept, 23))
        c = np.trunc(c / step) * step
    return c


@pytest.mark.parametrize("kind, kept", [("f16", 23), ("e4m3", 13)])
@pytest.mark.parametrize("block", [4, 8, 32])
def test_bounds_of_sums(kind: str, kept: int, block: int) -> None:
    """Wide enough for tensor cores as they are described, not for a term that is left out, nor for 7 bits fewer."""
    generator = np.random.default_rng(block)
    a, b, c = (generator.standard_normal(s).astype(np.float16).astype(float) for s in ((64, 32), (32, 64), (64, 64)))
    exact = (a @ b + c).astype(np.float32)
    place = np.indices((64, 64))
    within = sums(kind, "f32", a, b, c, (place[0], place[1]))
    assert disagreement(exact, tensor_cores(a, b, c, kept, block).astype(np.float32), within) is None
    assert disagreement(exact, tensor_cores(a, b, c, kept - 7, block).astype(np.float32), within) is not None
    assert disagreement(exact, (a[:, :31] @ b[:31] + c).astype(np.float32), within) is not None
    assert sums(kind, "f32", np.trunc(a), np.trunc(b), np.trunc(c)) is None
    assert sums(kind, "f32", np.trunc(a) * 2.0**kept, np.trunc(b), np.trunc(c)) is not None


class Broken:
    """A driver's library whose device does not come back."""

    def __init__(self, query: int, synchronize: int) -> None:
        self.codes = {"cuStreamQuery": query, "cuCtxSynchronize": synchronize}

    def __getattr__(self, name: str):
        return lambda *_: self.codes.get(name, 0)


@pytest.mark.parametrize("query, synchronize, said", [(600, 0, "more than"), (700, 700, "^$")], ids=["hangs", "fails"])
def test_a_device_that_is_lost(query: int, synchronize: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs for ever, or leaves its context in pieces, is not asked again."""
    monkeypatch.setattr(ptx, "PATIENCE", 0.01)
    other = Other()
    other.library = Broken(query, synchronize)
    with compared(other, test="the test"), pytest.raises(DeviceError, match=said):
        run_elementwise("add.u32 {d}, {a}, 1;", "u32", [("u32", X)])
    assert other.lost.startswith("the test: ")


def test_a_launch_that_is_refused_loses_no_device() -> None:
    other = Other(refuses=1)
    with compared(other, test="the test"), pytest.raises(DeviceError, match="not here"):
        run_elementwise("add.u32 {d}, {a}, 1;", "u32", [("u32", X)])
    assert other.lost == ""
