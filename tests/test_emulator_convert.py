"""cvt on the emulator: every pair of types, rounding modes, saturation, packed and tf32, against exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.exact import FORMATS, Format, cases
from neurokern.testing.ptx import HEADER, HOPPER, bits_of, run_elementwise
from neurokern.testing.twins import but_nan

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

INTEGERS = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"]
FLOATS = ["f16", "bf16", "f32", "f64"]


def integers(type_: str, generator: np.random.Generator) -> np.ndarray:
    width = bits_of(type_)
    edges = [x % 2**width for k in (7, 8, 11, 15, 16, 24, 31, 32, 53, 63) for x in (2**k - 1, 2**k, 2**k + 1, -(2**k))]
    near_ties = [x % 2**width for x in (2**24 + 1, 2**24 + 3, 2**25 + 2, 2**53 + 1, 2**54 + 2, 2049, 257)]
    wild = np.frombuffer(generator.bytes(8 * 400), np.uint64) >> generator.integers(64 - width, 64, 400).astype(
        np.uint64
    )
    return np.concatenate([np.array([0, 1, 2**width - 1, *edges, *near_ties], np.uint64), wild])


def number(x: int, type_: str) -> int:
    width = bits_of(type_)
    x &= 2**width - 1
    return x - 2**width if type_[0] == "s" and x >> (width - 1) else x


def limits(type_: str) -> tuple[int, int]:
    width = bits_of(type_)
    return (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if type_[0] == "s" else (0, 2**width - 1)


@pytest.mark.parametrize("saturate", [False, True], ids=["wrap", "sat"])
@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("result", INTEGERS)
def test_integer_to_integer(result: str, source: str, saturate: bool, seed: int) -> None:
    x = integers(source, np.random.default_rng(seed))
    (low, high), (least, most) = limits(result), limits(source)
    if saturate and low <= least and most <= high:
        pytest.skip("PTX has no such instruction")
    sat = ".sat" if saturate else ""
    got = run_elementwise(f"cvt{sat}.{result}.{source} {{d}}, {{a}};", result, [(source, x)])
    for g, bits in zip(got.tolist(), x.tolist(), strict=True):
        v = number(bits, source)
        want = max(low, min(high, v)) if saturate else v
        assert g == want % 2 ** bits_of(result), (result, source, v)


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("source", [t for t in INTEGERS if bits_of(t) >= 16])
@pytest.mark.parametrize("result", ["f16", "f32", "f64"])
def test_integer_to_float(result: str, source: str, mode: str, seed: int) -> None:
    f = FORMATS[result]
    x = integers(source, np.random.default_rng(seed))
    got = run_elementwise(f"cvt.{mode}.{result}.{source} {{d}}, {{a}};", result, [(source, x)])
    for g, bits in zip(got.tolist(), x.tolist(), strict=True):
        v = number(bits, source)
        want = f.round(Fraction(v), mode) if v else 0
        assert g == want, f"cvt.{mode}.{result}.{source} of {v}: 0x{g:x}, expected 0x{want:x}"


ROUND = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


@pytest.mark.parametrize("mode", ROUND)
@pytest.mark.parametrize("source", ["f16", "f32", "f64"])
@pytest.mark.parametrize("result", [t for t in INTEGERS if bits_of(t) >= 16])
def test_float_to_integer(result: str, source: str, mode: str, seed: int) -> None:
    """Clamped; NaN gives 0, or the top bit alone where f64 or 64 bits take part."""
    f = FORMATS[source]
    (x,) = cases(f, np.random.default_rng(seed), 1, 600)
    got = run_elementwise(f"cvt.{mode}.{result}.{source} {{d}}, {{a}};", result, [(source, x)])
    low, high = limits(result)
    width = bits_of(result)
    for g, bits in zip(got.tolist(), x.tolist(), strict=True):
        v = f.value(bits)
        if math.isnan(v):
            want = 2 ** (width - 1) if source == "f64" or width == 64 else 0
        elif math.isinf(v):
            want = high if v > 0 else low
        else:
            want = max(low, min(high, ROUND[mode](Fraction(v))))
        assert g == want % 2**width, f"cvt.{mode}.{result}.{source} of {v}: 0x{g:x}, expected {want}"


def narrowed(f: Format, to: Format, bits: int, mode: str) -> int:
    v = f.value(bits)
    return to.round(Fraction(v), mode) if math.isfinite(v) and v else to.special(v)


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("pair", ["f64 f32", "f64 f16", "f32 f16", "f32 bf16"])
def test_narrowing(pair: str, mode: str, seed: int) -> None:
    if "bf16" in pair and mode in ("rm", "rp"):
        pytest.skip("PTX has no such instruction")
    source, result = pair.split()
    f, to = FORMATS[source], FORMATS[result]
    (x,) = cases(f, np.random.default_rng(seed), 1, 2000)
    got = run_elementwise(f"cvt.{mode}.{result}.{source} {{d}}, {{a}};", result, [(source, x)])
    for g, bits in zip(got.tolist(), x.tolist(), strict=True):
        want = narrowed(f, to, bits, mode)
        assert g == want, f"cvt.{mode}.{result}.{source} of {f.value(bits)}: 0x{g:x}, expected 0x{want:x}"


@pytest.mark.parametrize("pair", ["f16 f32", "bf16 f32", "f16 f64", "f32 f64"])
def test_widening(pair: str, seed: int) -> None:
    source, result = pair.split()
    f, to = FORMATS[source], FORMATS[result]
    x = np.arange(2**16, dtype=np.uint64) if f.bits == 16 else cases(f, np.random.default_rng(seed), 1, 2000)[0]
    text = f"cvt.{result}.{source} {{d}}, {{a}};"
    got = run_elementwise(text, result, [(source, x)], within=but_nan(result))
    for g, bits in zip(got.tolist(), x.tolist(), strict=True):
        v = f.value(bits)
        if math.isnan(v):
            assert math.isnan(to.value(g))
        else:
            assert to.value(g) == v, (pair, v)
            assert math.copysign(1, to.value(g)) == math.copysign(1, v)


@pytest.mark.parametrize("mode", ROUND)
@pytest.mark.parametrize("name", ["f16", "f32", "f64"])
def test_to_whole_numbers(name: str, mode: str, seed: int) -> None:
    f = FORMATS[name]
    (x,) = cases(f, np.random.default_rng(seed), 1, 800)
    got = run_elementwise(f"cvt.{mode}.{name}.{name} {{d}}, {{a}};", name, [(name, x)], within=but_nan(name))
    for g, bits in zip(got.tolist(), x.tolist(), strict=True):
        v = f.value(bits)
        if not math.isfinite(v):
            assert (math.isnan(v) and math.isnan(f.value(g))) or f.value(g) == v
            continue
        want = ROUND[mode](Fraction(v))
        assert f.value(g) == want, f"cvt.{mode}.{name} of {v}"
        assert math.copysign(1, f.value(g)) == math.copysign(1, v), f"the sign of cvt.{mode}.{name} of {v}"


def test_saturation_and_flushing(seed: int) -> None:
    f, half = FORMATS["f32"], FORMATS["f16"]
    (x,) = cases(f, np.random.default_rng(seed), 1, 800)
    got = run_elementwise("cvt.sat.f32.f32 {d}, {a};", "f32", [("f32", x)])
    assert got.tolist() == [f.saturate(int(b)) for b in x]
    got = run_elementwise("cvt.ftz.f32.f32 {d}, {a};", "f32", [("f32", x)], within=but_nan("f32"))
    for g, bits in zip(got.tolist(), x.tolist(), strict=True):
        assert g == f.flush(bits) or (math.isnan(f.value(g)) and math.isnan(f.value(bits)))
    got = run_elementwise("cvt.rn.sat.f16.f32 {d}, {a};", "f16", [("f32", x)])
    assert got.tolist() == [half.saturate(narrowed(f, half, int(b), "rn")) for b in x]


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_packed(name: str, relu: str, seed: int) -> None:
    """The first operand lands in the upper half."""
    f, to = FORMATS["f32"], FORMATS[name]
    x, y = cases(f, np.random.default_rng(seed), 2)
    for mode in ("rn", "rz"):
        got = run_elementwise(
            f"cvt.{mode}{relu}.{name}x2.f32 {{d}}, {{a}}, {{b}};", f"{name}x2", [("f32", x), ("f32", y)]
        )

        def half(bits: int, mode: str = mode) -> int:
            return 0 if relu and f.value(bits) <= 0 else narrowed(f, to, bits, mode)

        assert got.tolist() == [half(int(a)) << 16 | half(int(b)) for a, b in zip(x, y, strict=True)]


@pytest.mark.parametrize("mode", ["rna", "rn"])
def test_tf32(mode: str, seed: int) -> None:
    f = FORMATS["f32"]
    tf32 = Format("tf32", 8, 10, 0x3FFFF)
    (x,) = cases(f, np.random.default_rng(seed), 1, 2000)
    header = HOPPER if mode == "rn" else HEADER
    got = run_elementwise(f"cvt.{mode}.tf32.f32 {{d}}, {{a}};", "b32", [("f32", x)], header, but_nan("f32"))
    for g, bits in zip(got.tolist(), x.tolist(), strict=True):
        v = f.value(bits)
        if math.isnan(v):
            assert math.isnan(f.value(g))
        else:
            want = narrowed(f, tf32, bits, mode) << 13
            assert g == want, f"cvt.{mode}.tf32 of {v}: 0x{g:x}, expected 0x{want:x}"
