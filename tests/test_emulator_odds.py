"""Odds and ends on the emulator: barriers that reduce, cvt.pack, doubles roughly, flushing, generic ldmatrix."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing import ptx
from neurokern.testing.ptx import DeviceError, elementwise, emulator
from neurokern.testing.ptxas import complaint
from neurokern.testing.twins import but_nan

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

HEADER = ".version 9.0\n.target sm_90a\n.address_size 64\n"
run_elementwise = partial(ptx.run_elementwise, header=HEADER)


def run(body: str, x: np.ndarray, threads: int) -> np.ndarray:
    """%x: the thread's word, %y: what is stored."""
    text = f"""{HEADER}
.visible .entry kernel(.param .u64 data) {{
  .reg .pred %p, %q, %r; .reg .b32 %x, %y, %t, %a, %b; .reg .b64 %m, %n;
  mov.u32 %t, %tid.x; ld.param.u64 %m, [data]; mad.wide.u32 %n, %t, 4, %m; ld.global.b32 %x, [%n]; mov.b32 %y, %x;
  setp.ne.u32 %p, %x, 0;
  {body}
  st.global.b32 [%n], %y; ret;
}}"""
    assert complaint(text) == ""
    out = x.astype(np.uint32)
    emulator().launch(text, [out], block=(threads, 1, 1))
    return out


@pytest.mark.parametrize("threads", [32, 96, 100, 256])
def test_barriers_that_reduce(threads: int, seed: int) -> None:
    """Every thread learns how many, whether all, whether any; twice, so that the first leaves nothing behind."""
    generator = np.random.default_rng(seed)
    patterns = [
        np.zeros(threads),
        np.ones(threads),
        generator.integers(0, 2, threads),
        np.arange(threads) == threads - 1,
    ]
    for x in patterns:
        x = x.astype(np.uint32)
        got = run("bar.red.popc.u32 %a, 0, %p; bar.red.popc.u32 %b, 0, !%p; mad.lo.u32 %y, %b, 1000, %a;", x, threads)
        assert set(got.tolist()) == {(threads - x.sum()) * 1000 + x.sum()}
        text = """barrier.cta.red.and.aligned.pred %q, 1, %p; bar.red.or.pred %r, 1, %p; selp.u32 %y, 1, 0, %q;
  selp.u32 %a, 2, 0, %r; add.u32 %y, %y, %a;"""
        assert set(run(text, x, threads).tolist()) == {int(x.all()) + 2 * int(x.any())}


def test_a_barrier_that_reduces_over_some_warps() -> None:
    text = "setp.ge.u32 %q, %t, 64; @%q bra OUT; bar.red.popc.u32 %y, 2, 64, %p; OUT:"
    x = np.arange(128) % 3
    assert run(text, x, 128).tolist() == [int((x[:64] != 0).sum())] * 64 + x[64:].tolist()


@pytest.mark.parametrize("t", ["s8", "u8", "s16", "u16", "s4", "u4", "s2", "u2"])
def test_saturated_integers_packed(t: str, seed: int) -> None:
    bits = int(t[1:])
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if t[0] == "s" else (0, 2**bits - 1)
    edges = [0, 1, -1, low, low - 1, high, high + 1, -(2**31), 2**31 - 1]
    generator = np.random.default_rng(seed)
    x = np.concatenate([np.repeat(edges, 9), generator.integers(-400, 400, 300)]) % 2**32
    y = np.concatenate([np.tile(edges, 9), generator.integers(-(2**31), 2**31, 300)]) % 2**32
    z = generator.integers(0, 2**32, len(x))
    third = ".b32" if bits < 16 else ""
    text = f"cvt.pack.sat.{t}.s32{third} {{d}}, {{a}}, {{b}}{', {c}' if third else ''};"
    assert complaint(HEADER + elementwise(text, "b32", ["b32"] * (3 if third else 2))) == ""
    got = run_elementwise(text, "b32", [("b32", v) for v in ([x, y, z] if third else [x, y])])

    def one(v: np.ndarray) -> np.ndarray:
        return np.clip((v + 2**31) % 2**32 - 2**31, low, high) % 2**bits

    want = one(x) << bits | one(y) | (z << 2 * bits if third else 0)
    np.testing.assert_array_equal(got, want % 2**32)


def test_a_product_of_24_bits_that_saturates(seed: int) -> None:
    x, y, z = np.random.default_rng(seed).integers(-(2**23), 2**23, (3, 500))
    z = np.concatenate([z[:100], np.repeat([2**31 - 1, -(2**31), 2**31 - 2**20, -(2**31) + 2**20], 100)])
    text = "mad24.hi.sat.s32 {d}, {a}, {b}, {c};"
    assert complaint(HEADER + elementwise(text, "b32", ["b32"] * 3)) == ""
    got = run_elementwise(text, "b32", [("b32", v % 2**32) for v in (x, y, z)])
    np.testing.assert_array_equal(got.view(np.int32), np.clip((x * y >> 16) + z, -(2**31), 2**31 - 1))


@pytest.mark.parametrize(("name", "f"), [("rcp", lambda x: 1 / x), ("rsqrt", lambda x: 1 / math.sqrt(x))])
def test_rough_functions_of_doubles(name: str, f, seed: int) -> None:
    """From the upper halves to the upper halves: 20 bits, the rest 0; subnormal numbers are zeros."""
    x = np.random.default_rng(seed).standard_normal(500) * 10.0 ** np.random.default_rng(seed).integers(-300, 300, 500)
    if name == "rsqrt":
        x = np.abs(x)
    text = f"{name}.approx.ftz.f64 {{d}}, {{a}};"
    assert complaint(HEADER + elementwise(text, "b64", ["b64"])) == ""
    got = run_elementwise(text, "b64", [("b64", x.view(np.uint64))])
    assert (got & 0xFFFFFFFF == 0).all()
    want = np.array([f(v) for v in x.tolist()])
    value = got.view(np.float64)
    normal = np.abs(want) >= 2.0**-1022
    assert (np.abs(value - want) <= np.abs(want) * 2.0**-19)[normal].all()
    assert (value[~normal] == 0).all()
    special = np.array([0.0, -0.0, math.inf, 5e-324, math.nan])
    got = run_elementwise(text, "b64", [("b64", special.view(np.uint64))]).view(np.float64)
    want = [math.inf, -math.inf, 0.0, math.inf, math.nan]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", ["neg", "abs"])
def test_signs_of_flushed_halves(op: str) -> None:
    x = np.arange(2**16)
    text = f"{op}.ftz.f16 {{d}}, {{a}};"
    assert complaint(HEADER + elementwise(text, "b16", ["b16"])) == ""
    got = run_elementwise(text, "b16", [("b16", x)], within=but_nan("f16"))
    flushed = np.where(x & 0x7C00 == 0, x & 0x8000, x)
    want = flushed ^ 0x8000 if op == "neg" else flushed & 0x7FFF
    number = x & 0x7FFF <= 0x7C00
    np.testing.assert_array_equal(got[number], want[number])
    assert (got[~number] & 0x7FFF > 0x7C00).all()


def test_comparison_of_flushed_halves() -> None:
    x = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x8400, 0x3C00, 0x7E00])
    a, b = np.repeat(x, len(x)), np.tile(x, len(x))
    text = "setp.{op}{ftz}.f16 %r, {{a}}, {{b}}; selp.b32 {{d}}, 1, 0, %r;"
    for ftz in ("", ".ftz"):
        for op, f in (("eq", np.equal), ("lt", np.less)):
            line = text.format(op=op, ftz=ftz)
            assert complaint(HEADER + elementwise(line, "b32", ["b16"] * 2)) == ""
            got = run_elementwise(line, "b32", [("b16", a), ("b16", b)])
            value = [v.astype(np.uint16).view(np.float16).astype(float) for v in (a, b)]
            if ftz:
                value = [np.where(np.abs(v) < 2.0**-14, 0.0, v) for v in value]
            np.testing.assert_array_equal(got, f(*value).astype(int))


def test_product_and_saturated_sum(seed: int) -> None:
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**30, 3 * 2**30]
    generator = np.random.default_rng(seed)
    x, y, z = (np.concatenate([generator.choice(edges, 300), generator.integers(0, 2**32, 300)]) for _ in range(3))
    got = run_elementwise("mad.hi.sat.s32 {d}, {a}, {b}, {c};", "b32", [("b32", v) for v in (x, y, z)])
    for g, *row in zip(got.tolist(), x.tolist(), y.tolist(), z.tolist(), strict=True):
        a, b, c = (v - 2**32 * (v >= 2**31) for v in row)
        assert g == max(-(2**31), min(2**31 - 1, (a * b >> 32) + c)) % 2**32, row


MATRIX = """.shared .align 16 .b8 tile[1024]; mov.u32 %a, tile; mad.lo.u32 %b, %t, 4, %a; st.shared.b32 [%b], %x;
  bar.warp.sync -1; cvt.u64.u32 %m, %a; cvta.shared.u64 %m, %m;
  sub.u32 %b, 7, %t; mad.wide.u32 %m, %b, 16, %m; setp.lt.u32 %q, %t, 8; @!%q sub.u64 %m, %m, %m;
  ldmatrix.sync.aligned.m8n8.x1.b16 {%y}, [%m];"""


def test_matrices_by_generic_addresses() -> None:
    """Rows in reverse."""
    want = np.arange(32).reshape(8, 4)[::-1]
    assert run(MATRIX, np.arange(32), 32).tolist() == want.reshape(-1).tolist()


@pytest.mark.emulator_only("errors")
def test_matrices_by_addresses_of_nothing() -> None:
    with pytest.raises(DeviceError, match="is none of shared memory"):
        run(MATRIX.replace("cvta.shared.u64 %m, %m;", ""), np.arange(32), 32)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_flag_between_sums_and_differences(bits: int, seed: int) -> None:
    """As ptxas makes it: a - b is a + ~b + 1, and the flag is what that carries."""
    generator = np.random.default_rng(seed)
    x, y, z = (generator.integers(0, 2**bits, 300, dtype=np.uint64, endpoint=False) if bits == 32
               else generator.integers(0, 2**64, 300, dtype=np.uint64) for _ in range(3))  # fmt: skip
    y[:40] = x[:40]
    t = f"b{bits}"
    for text, model in [
        ("sub.cc.u{0} {{d}}, {{a}}, {{b}}; addc.u{0} {{d}}, {{c}}, 0;", lambda a, b, c: c + (a >= b)),
        ("add.cc.u{0} {{d}}, {{a}}, {{b}}; subc.u{0} {{d}}, {{c}}, 0;", lambda a, b, c: c - 1 + (a + b >> bits)),
    ]:
        instruction = text.format(bits)
        assert complaint(HEADER + elementwise(instruction, t, [t] * 3)) == ""
        got = run_elementwise(instruction, t, [(t, v) for v in (x, y, z)])
        want = [model(int(a), int(b), int(c)) % 2**bits for a, b, c in zip(x, y, z, strict=True)]
        assert got.tolist() == want


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("t", ["u8", "s8"])
def test_distances_of_bytes(t: str, add: bool, seed: int) -> None:
    x, y, z = np.random.default_rng(seed).integers(0, 2**32, (3, 500), dtype=np.uint32)
    word = t[0] + "32"
    text = f"vabsdiff4.u32.{word}.{word}{'.add' if add else ''} {{d}}, {{a}}, {{b}}, {{c}};"
    assert complaint(HEADER + elementwise(text, "b32", ["b32"] * 3)) == ""
    got = run_elementwise(text, "b32", [("b32", v) for v in (x, y, z)])
    a, b = (v.view(np.int8 if t == "s8" else np.uint8).astype(np.int64) for v in (x, y))
    d = np.abs(a - b)
    want = z + d.reshape(-1, 4).sum(1) if add else d.astype(np.uint8).view(np.uint32)
    np.testing.assert_array_equal(got, want.astype(np.int64) % 2**32)
