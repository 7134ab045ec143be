"""The emulator's floating-point instructions against exact arithmetic, bit for bit, over edges and random values."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.exact import FORMATS, Format, cases, exactly, root
from neurokern.testing.ptx import HEADER, HOPPER, run_elementwise
from neurokern.testing.twins import but_nan

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]


def agree(f: Format, got: np.ndarray, want: list[int], inputs: list[np.ndarray], what: str) -> None:
    """Equal bits; NaN of double precision is any NaN."""
    for k, (g, w) in enumerate(zip(got.tolist(), want, strict=True)):
        if g != w and not (f.name == "f64" and math.isnan(f.value(g)) and w == f.nan):
            operands = [f"{f.value(int(i[k]))} (0x{int(i[k]):x})" for i in inputs]
            pytest.fail(f"{what} of {operands}: 0x{g:x}, expected 0x{w:x}", pytrace=False)


def named(inputs: list[np.ndarray]) -> str:
    """The operands of a template: {a}, {b} ..."""
    return ", ".join(f"{{{n}}}" for n in "abc"[: len(inputs)])


def values(f: Format, inputs: list[np.ndarray]) -> list[tuple[float, ...]]:
    return [tuple(f.value(int(x)) for x in row) for row in zip(*inputs, strict=True)]


OPERANDS = {"add": 2, "sub": 2, "mul": 2, "div": 2, "fma": 3}


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.parametrize("op", OPERANDS)
def test_rounded(op: str, name: str, mode: str, seed: int) -> None:
    f = FORMATS[name]
    inputs = cases(f, np.random.default_rng(seed), OPERANDS[op])
    operands = named(inputs)
    got = run_elementwise(f"{op}.{mode}.{name} {{d}}, {operands};", name, [(name, i) for i in inputs])
    agree(f, got, [exactly(op, f, mode, *v) for v in values(f, inputs)], inputs, f"{op}.{mode}.{name}, seed {seed}")


@pytest.mark.parametrize("modifiers", ["ftz", "sat", "ftz.sat", "rz.ftz.sat"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma"])
def test_flushed_and_saturated(op: str, modifiers: str, seed: int) -> None:
    f = FORMATS["f32"]
    inputs = cases(f, np.random.default_rng(seed), OPERANDS[op])
    operands = named(inputs)
    mode = "rz" if "rz" in modifiers else "rn"
    full = modifiers if "rz" in modifiers else f"rn.{modifiers}"
    got = run_elementwise(f"{op}.{full}.f32 {{d}}, {operands};", "f32", [("f32", i) for i in inputs])
    want = []
    for row in zip(*inputs, strict=True):
        bits = [int(b) for b in row]
        if "ftz" in modifiers:
            bits = [f.flush(b) for b in bits]
        r = exactly(op, f, mode, *(f.value(b) for b in bits))
        if "ftz" in modifiers:
            r = f.flush(r)
        want.append(f.saturate(r) if "sat" in modifiers else r)
    agree(f, got, want, inputs, f"{op}.{full}.f32, seed {seed}")


@pytest.mark.parametrize("packed", [False, True], ids=["one", "two"])
@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma"])
def test_sixteen_bits(op: str, name: str, packed: bool, seed: int) -> None:
    f = FORMATS[name]
    inputs = cases(f, np.random.default_rng(seed), OPERANDS[op])
    operands = named(inputs)
    want = [exactly(op, f, "rn", *v) for v in values(f, inputs)]
    run = partial(run_elementwise, header=HOPPER if name == "bf16" else HEADER)
    if not packed:
        got = run(f"{op}.rn.{name} {{d}}, {operands};", name, [(name, i) for i in inputs])
    else:
        halves = [i[::2][: len(i) // 2] | i[1::2][: len(i) // 2] << np.uint64(16) for i in inputs]
        both = run(f"{op}.rn.{name}x2 {{d}}, {operands};", f"{name}x2", [(f"{name}x2", h) for h in halves])
        got = np.stack([both & 0xFFFF, both >> 16], 1).ravel()
        inputs, want = [i[: len(got)] for i in inputs], want[: len(got)]
    agree(f, got, want, inputs, f"{op}.{name}, seed {seed}")


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["f32", "f64"])
def test_root_and_reciprocal(name: str, mode: str, seed: int) -> None:
    f = FORMATS[name]
    (x,) = cases(f, np.random.default_rng(seed), 1, 600)
    got = run_elementwise(f"sqrt.{mode}.{name} {{d}}, {{a}};", name, [(name, x)])
    agree(f, got, [root(f, int(b), mode) for b in x], [x], f"sqrt.{mode}.{name}, seed {seed}")
    got = run_elementwise(f"rcp.{mode}.{name} {{d}}, {{a}};", name, [(name, x)])
    agree(f, got, [exactly("div", f, mode, 1.0, f.value(int(b))) for b in x], [x], f"rcp.{mode}.{name}, seed {seed}")


def least(f: Format, x: int, y: int, largest: bool, keeps_nan: bool) -> int:
    a, b = f.value(x), f.value(y)
    if math.isnan(a) or math.isnan(b):
        if keeps_nan or (math.isnan(a) and math.isnan(b)):
            return f.nan
        return y if math.isnan(a) else x
    first = (a, math.copysign(1, a)) < (b, math.copysign(1, b))
    return x if first != largest else y


@pytest.mark.parametrize("name", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("op", ["min", "max", "min.NaN", "max.NaN"])
def test_extremes(op: str, name: str, seed: int) -> None:
    if name == "f64" and "NaN" in op:
        pytest.skip("PTX has no such instruction")
    f = FORMATS[name]
    inputs = cases(f, np.random.default_rng(seed), 2)
    got = run_elementwise(f"{op}.{name} {{d}}, {{a}}, {{b}};", name, [(name, i) for i in inputs])
    want = [least(f, int(x), int(y), "max" in op, "NaN" in op) for x, y in zip(*inputs, strict=True)]
    agree(f, got, want, inputs, f"{op}.{name}, seed {seed}")


@pytest.mark.parametrize("name", ["f32", "f64", "f16", "bf16"])
def test_signs(name: str, seed: int) -> None:
    """neg, abs and copysign change one bit, here also of NaN, which the rules leave open."""
    f, within = FORMATS[name], but_nan(name)
    x, y = cases(f, np.random.default_rng(seed), 2)
    top = np.uint64(1 << (f.bits - 1))
    assert (run_elementwise(f"neg.{name} {{d}}, {{a}};", name, [(name, x)], within=within) == (x ^ top)).all()
    assert (run_elementwise(f"abs.{name} {{d}}, {{a}};", name, [(name, x)], within=within) == (x & ~top)).all()
    if name in ("f32", "f64"):
        got = run_elementwise(f"copysign.{name} {{d}}, {{a}}, {{b}};", name, [(name, x), (name, y)], within=within)
        assert (got == (y & ~top | x & top)).all()


APPROXIMATE = {  # function, largest error that the PTX ISA states: relative, absolute
    "ex2.approx.ftz.f32": (np.exp2, 2**-22, 0),
    "lg2.approx.f32": (np.log2, 2**-22, 2**-22),
    "rsqrt.approx.f32": (lambda x: 1 / np.sqrt(x), 2**-22.9, 0),
    "rcp.approx.f32": (lambda x: 1 / x, 2**-23, 0),
    "sqrt.approx.f32": (np.sqrt, 2**-23, 0),
    "sin.approx.f32": (np.sin, 0, 2**-20.5),
    "cos.approx.f32": (np.cos, 0, 2**-20.5),
    "tanh.approx.f32": (np.tanh, 2**-10.987, 0),
}


@pytest.mark.parametrize("instruction", APPROXIMATE)
def test_approximations(instruction: str, seed: int) -> None:
    f, relative, absolute = APPROXIMATE[instruction]
    x = np.random.default_rng(seed).uniform(0.01, 3.0, 2000).astype(np.float32)
    got = run_elementwise(f"{instruction} {{d}}, {{a}};", "f32", [("f32", x.view(np.uint32))]).view(np.float32)
    want = f(x.astype(np.float64))
    assert (np.abs(got - want) <= np.abs(want) * relative + absolute + 2**-24 * np.abs(want)).all(), f"seed {seed}"


@pytest.mark.parametrize("name, f", {"rcp": lambda x: 1 / x, "rsqrt": lambda x: 1 / np.sqrt(x)}.items())
def test_approximations_in_the_upper_word(name: str, f, seed: int) -> None:
    """.approx.ftz.f64 reads 20 bits of the mantissa and gives as many; what is subnormal counts as zero."""
    x = np.random.default_rng(seed).uniform(0.01, 3.0, 500)
    x[:4] = [0.0, np.inf, 1e-310, np.nan]
    bits = run_elementwise(f"{name}.approx.ftz.f64 {{d}}, {{a}};", "f64", [("f64", x.view(np.uint64))])
    got = bits.view(np.float64)
    assert (bits[~np.isnan(got)] & np.uint64(0xFFFFFFFF) == 0).all()
    assert got[:3].tolist() == [np.inf, 0.0, np.inf]
    assert np.isnan(got[3])
    assert (np.abs(got[4:] * (1 / f(x[4:])) - 1) <= 2.0**-18).all()


def test_ends_of_approximations() -> None:
    inf, nan = math.inf, math.nan
    rows = {
        "ex2.approx.f32": [(-inf, 0.0), (inf, inf), (-0.0, 1.0), (-150.0, 0.0), (nan, nan)],
        "lg2.approx.f32": [(0.0, -inf), (-0.0, -inf), (inf, inf), (1.0, 0.0), (-1.0, nan)],
        "rsqrt.approx.f32": [(0.0, inf), (-0.0, -inf), (inf, 0.0), (-1.0, nan)],
        "rcp.approx.f32": [(0.0, inf), (-0.0, -inf), (-inf, -0.0)],
        "div.approx.f32": [(1.0, 1.0)],
    }
    for instruction, pairs in rows.items():
        x = np.array([p[0] for p in pairs], np.float32)
        operands = "{a}, {a}" if "div" in instruction else "{a}"
        got = run_elementwise(f"{instruction} {{d}}, {operands};", "f32", [("f32", x.view(np.uint32))]).view(np.float32)
        for g, (a, w) in zip(got, pairs, strict=True):
            same = (math.isnan(w) and math.isnan(g)) or (g == w and math.copysign(1, g) == math.copysign(1, w))
            assert same, f"{instruction} of {a}: {g}, expected {w}"
