"""cvt to and from formats of 8 bits, and with .relu and .satfinite, on the emulator, against torch."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing import ptx
from neurokern.testing.ptxas import complaint
from neurokern.testing.twins import but_nan
from neurokern.testing.wgmma import HEADER

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

run_elementwise = partial(ptx.run_elementwise, header=HEADER)

BYTES = {"e4m3": (torch.float8_e4m3fn, 448.0), "e5m2": (torch.float8_e5m2, 57344.0)}
HALVES = {"f16": (torch.float16, 65504.0), "bf16": (torch.bfloat16, torch.finfo(torch.bfloat16).max)}


def numbers(seed: int) -> torch.Tensor:
    """All magnitudes of single precision that matter, every f16 number, and numbers halfway between two of 8 bits."""
    g = torch.Generator().manual_seed(seed)
    wild = torch.randint(-(2**31), 2**31, (4000,), generator=g, dtype=torch.int64).to(torch.int32).view(torch.float32)
    near = torch.randn(4000, generator=g) * 2.0 ** torch.randint(-20, 18, (4000,), generator=g)
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    codes = [torch.arange(127, dtype=torch.uint8).view(t).float() for t, _ in BYTES.values()]
    middles = [(c[1:] + c[:-1]) / 2 for c in codes]
    limits = torch.tensor([448, 463.9, 464, 464.1, 480, 57344, 61439, 61440, 65519, 65520, 3.39e38, float("inf")])
    one_side = torch.cat([*codes, *middles, *(m.nextafter(torch.tensor(9e9)) for m in middles), limits])
    return torch.cat([wild, near, every, one_side, -one_side, torch.tensor([0.0, -0.0, float("nan")])])


def expected(x: torch.Tensor, kind: str, relu: bool, satfinite: bool) -> np.ndarray:
    """Codes. NaN is the canonical one."""
    dtype, most = {**BYTES, **HALVES}[kind]
    nan = x.isnan()
    if relu:
        x = torch.where(x > 0, x, 0.0)
    if satfinite:
        x = x.clamp(-most, most)
    bits = x.to(dtype).view(torch.uint8 if kind in BYTES else torch.int16).numpy()
    bits = bits.astype(np.int64) & (0xFF if kind in BYTES else 0xFFFF)
    return np.where(nan.numpy(), 0x7F if kind in BYTES else 0x7FFF, bits)


def assembled(instruction: str, registers: str) -> None:
    text = instruction.format(d="%d", a="%a", b="%b")
    assert complaint(f"{HEADER}.visible .entry k() {{ {registers} {text} ret; }}") == ""


@pytest.mark.parametrize("relu", ["", ".relu"], ids=["plain", "relu"])
@pytest.mark.parametrize("kind", [*BYTES, *HALVES])
def test_pairs_from_single_precision(kind: str, relu: str, seed: int) -> None:
    """The first source is the upper half."""
    x = numbers(seed)
    y = x.flip(0)
    width = 8 if kind in BYTES else 16
    for satfinite in [True] if kind in BYTES else [False, True]:
        modifiers = (".satfinite" if satfinite else "") + relu
        instruction = f"cvt.rn{modifiers}.{kind}x2.f32 {{d}}, {{a}}, {{b}};"
        assembled(instruction, f".reg .f32 %a, %b; .reg .b{2 * width} %d;")
        sources = [("f32", v.view(torch.int32).numpy()) for v in (x, y)]
        got = run_elementwise(instruction, f"b{2 * width}", sources)
        want = expected(x, kind, bool(relu), satfinite) << width | expected(y, kind, bool(relu), satfinite)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("relu", ["", ".relu"], ids=["plain", "relu"])
@pytest.mark.parametrize("kind", BYTES)
def test_pairs_from_halves_and_back(kind: str, relu: str) -> None:
    """Every number of f16 to 8 bits, and every pair of bytes to f16."""
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = halves.view(torch.float16)
    packed = torch.stack([x, x.flip(0)], 1).contiguous().view(torch.int32).numpy()[:, 0]
    instruction = f"cvt.rn.satfinite{relu}.{kind}x2.f16x2 {{d}}, {{a}};"
    assembled(instruction, ".reg .b16 %d; .reg .b32 %a;")
    got = run_elementwise(instruction, "b16", [("b32", packed)])
    code = expected(x.float(), kind, bool(relu), True)
    np.testing.assert_array_equal(got, code[::-1] << 8 | code)

    every = np.arange(2**16)
    instruction = f"cvt.rn{relu}.f16x2.{kind}x2 {{d}}, {{a}};"
    assembled(instruction, ".reg .b32 %d; .reg .b16 %a;")
    # the ISA says which NaN comes out of wider formats, not of these
    got = run_elementwise(instruction, "b32", [("b16", every)], within=but_nan("f16"))
    values = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(BYTES[kind][0]).float()
    one = expected(values, "f16", bool(relu), False)
    np.testing.assert_array_equal(got, one[every >> 8] << 16 | one[every & 255])


@pytest.mark.parametrize("modifiers", [".rn.relu", ".rn.satfinite", ".rn.relu.satfinite", ".rz.relu"])
@pytest.mark.parametrize("kind", HALVES)
def test_halves_with_limits(kind: str, modifiers: str, seed: int) -> None:
    x = numbers(seed)
    if ".rz" in modifiers:  # numbers that need no rounding, so that torch's rounding does for the model
        x = x.to(HALVES[kind][0]).float()
    instruction = f"cvt{modifiers}.{kind}.f32 {{d}}, {{a}};"
    assembled(instruction, ".reg .b16 %d; .reg .f32 %a;")
    got = run_elementwise(instruction, "b16", [("f32", x.view(torch.int32).numpy())])
    np.testing.assert_array_equal(got, expected(x, kind, "relu" in modifiers, "satfinite" in modifiers))


@pytest.mark.parametrize("modifiers", [".rna.satfinite", ".rn", ".rn.relu", ".rz", ".rz.relu"])
def test_tf32_with_limits(modifiers: str, seed: int) -> None:
    x = numbers(seed)
    instruction = f"cvt{modifiers}.tf32.f32 {{d}}, {{a}};"
    assembled(instruction, ".reg .b32 %d; .reg .f32 %a;")
    source = ("f32", x.view(torch.int32).numpy())
    got = run_elementwise(instruction, "b32", [source], within=but_nan("f32")).view(np.float32)
    v = torch.where(x > 0, x, 0.0).where(~x.isnan(), x) if "relu" in modifiers else x
    exponent = np.frexp(v.double().numpy())[1]
    exponent = np.maximum(exponent, -125)  # subnormal numbers have their steps
    scaled = np.ldexp(v.double().numpy(), 11 - exponent)
    whole = {"a": np.trunc(scaled + np.copysign(0.5, scaled)), "n": np.rint(scaled), "z": np.trunc(scaled)}
    want = np.ldexp(whole["a" if ".rna" in modifiers else "n" if ".rn" in modifiers else "z"], exponent - 11)
    most = float(np.uint32(0x7F7FE000).view(np.float32))
    if "satfinite" in modifiers:
        want = np.clip(want, -most, most)
    finite = np.isfinite(v.numpy()) | (("satfinite" in modifiers) & ~np.isnan(v.numpy()))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got[finite], want[finite].astype(np.float32))
    np.testing.assert_array_equal(got[~finite], v.numpy()[~finite])
    assert (got.view(np.uint32)[np.isnan(got)] == 0x7FFFFFFF).all()
