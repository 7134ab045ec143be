"""Instructions that few kernels use, on the emulator, against models in Python's integers and double precision."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from neurokern.backends import emulation
from neurokern.testing import ptx
from neurokern.testing.ptx import elementwise
from neurokern.testing.ptxas import complaint
from neurokern.testing.twins import but_nan

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]

HEADER = ".version 9.0\n.target sm_90a\n.address_size 64\n"
run_elementwise = partial(ptx.run_elementwise, header=HEADER)
EDGES = [0, 1, 2, 5, 31, 32, 33, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFF, 0x800000, 0x7FFFFFFF, 0x80000000,
         0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF]  # fmt: skip


def signed(x: int, bits: int) -> int:
    x &= 2**bits - 1
    return x - 2**bits if x >> (bits - 1) else x


def value(x: int, t: str) -> int:
    bits = int(t[1:])
    return signed(x, bits) if t[0] == "s" else x % 2**bits


def inputs(count: int, bits: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Edges against one another, and random numbers."""
    edges = [e % 2**bits for e in EDGES]
    rows = list(itertools.islice(itertools.product(edges, repeat=min(count, 2)), 500))
    columns = [[r[k % len(r)] for r in rows] for k in range(count)]
    if count > 2:
        columns[2] = [edges[(7 * k + k // 5) % len(edges)] for k in range(len(rows))]
    wild = [np.frombuffer(generator.bytes(8 * 300), np.uint64) >> np.uint64(64 - bits) for _ in range(count)]
    return [np.concatenate([np.array(c, np.uint64), w]) for c, w in zip(columns, wild, strict=True)]


def assembled(instruction: str, result: str, sources: list[str]) -> None:
    assert complaint(HEADER + elementwise(instruction, result, sources)) == ""


def check(instruction: str, result: str, sources: list[str], data: list[np.ndarray], model) -> None:
    assembled(instruction, result, sources)
    got = run_elementwise(instruction, result, list(zip(sources, data, strict=True)))
    size = got.dtype.itemsize * 8
    for g, *row in zip(got.tolist(), *(d.tolist() for d in data), strict=True):
        want = model(*row) % 2**size
        assert g == want, f"{instruction} of {[hex(x) for x in row]}: 0x{g:x}, expected 0x{want:x}"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("op", ["add", "sub", "mad.lo", "mad.hi"])
def test_carries(op: str, bits: int, seed: int) -> None:
    """The flag out of one instruction and into the next: two words of a sum, and the flag itself."""
    name, _, part = op.partition(".")
    dot = f".{part}" if part else ""
    signs = "us" if part == "hi" else "u"
    for sign in signs:
        t = f"{sign}{bits}"
        three = name == "mad"
        sources = ["b" + str(bits)] * (4 if three else 3)
        data = inputs(len(sources), bits, np.random.default_rng(seed))

        def product(x: int, y: int, t: str = t) -> int:
            full = value(x, t) * value(y, t)
            return (full >> bits if part == "hi" else full) % 2**bits

        def sums(x: int, y: int, *rest: int, three: bool = three) -> tuple[int, int]:
            if name == "sub":
                return (x - y) % 2**bits, int(x < y)
            total = (product(x, y) + rest[0]) if three else x + y
            return total % 2**bits, total >> bits

        last = "{e}" if three else "{c}"
        third = ", {c}" if three else ""
        out = f"{name}{dot}.cc.{t} {{d}}, {{a}}, {{b}}{third};"
        check(f"{out}", f"b{bits}", sources, data, lambda *r, sums=sums: sums(*r)[0])
        # the flag of the first, through an instruction that takes and leaves it, into a third word
        take = f"{name}c{dot}.cc.{t}" if three else f"{name}c.cc.{t}"
        extra = f", {last}" if three else ""
        chain = (
            f"{out} {take} {{d}}, {{a}}, {last}{extra}; {'sub' if name == 'sub' else 'add'}c.u{bits} {{d}}, {{d}}, 0;"
        )

        def chained(*r: int, sums=sums, three: bool = three) -> int:
            carry = sums(*r)[1]
            x, y = r[0], r[-1]
            if name == "sub":
                first = x - y - carry
                return first % 2**bits - (first < 0)
            first = (product(x, y) + y if three else x + y) + carry
            return first % 2**bits + (first >> bits)

        check(chain, f"b{bits}", sources, data, chained)


DOTS = {"4": 4, "2.lo": 2, "2.hi": 2}


@pytest.mark.parametrize("types", list(itertools.product(["u32", "s32"], repeat=2)), ids="-".join)
@pytest.mark.parametrize("form", DOTS)
def test_dot_products(form: str, types: tuple[str, str], seed: int) -> None:
    count, first = DOTS[form], 2 if form.endswith("hi") else 0
    width = 32 // count

    def model(x: int, y: int, c: int) -> int:
        for n in range(count):
            a, b = x >> width * n & (2**width - 1), y >> 8 * (first + n) & 255
            a = signed(a, width) if types[0] == "s32" else a
            c += a * (signed(b, 8) if types[1] == "s32" else b)
        return c

    name = f"dp{form[0]}a{form[1:]}"
    data = inputs(3, 32, np.random.default_rng(seed))
    check(f"{name}.{types[0]}.{types[1]} {{d}}, {{a}}, {{b}}, {{c}};", "b32", ["b32"] * 3, data, model)


def halves(f):
    def model(x: int, y: int) -> int:
        return sum((f(x >> s & 0xFFFF, y >> s & 0xFFFF) % 2**16) << s for s in (0, 16))

    return model


def sixteen(f):
    return halves(lambda x, y: f(signed(x, 16), signed(y, 16)))


def low24(x: int, t: str) -> int:
    return signed(x, 24) if t == "s32" else x & 0xFFFFFF


def extend(x: int, n: int, t: str, wraps: bool) -> int:
    n = n % 32 if wraps else n
    return x if n >= 32 else 0 if n == 0 else signed(x, n) if t == "s32" else x % 2**n


def nth_set(mask: int, base: int, offset: int) -> int:
    """As the ISA writes it."""
    offset = signed(offset, 32)
    if offset == 0:
        return base if base < 32 and mask >> base & 1 else -1
    step, count, at = (1 if offset > 0 else -1), abs(offset) - 1, base
    while 0 <= at < 32:
        if mask >> at & 1:
            if count == 0:
                return at
            count -= 1
        at += step
    return -1


INTEGER = {
    "add.u16x2": (32, 2, halves(lambda x, y: x + y)),
    "min.u16x2": (32, 2, halves(min)),
    "max.s16x2": (32, 2, sixteen(max)),
    "min.relu.s16x2": (32, 2, sixteen(lambda x, y: max(min(x, y), 0))),
    "max.relu.s32": (32, 2, lambda x, y: max(signed(x, 32), signed(y, 32), 0)),
    "min.relu.s32": (32, 2, lambda x, y: max(min(signed(x, 32), signed(y, 32)), 0)),
    "sad.u16": (16, 3, lambda x, y, c: c + abs(x - y)),
    "sad.s64": (64, 3, lambda x, y, c: c + abs(signed(x, 64) - signed(y, 64))),
    "sad.s32": (32, 3, lambda x, y, c: c + abs(signed(x, 32) - signed(y, 32))),
    "mul24.lo.s32": (32, 2, lambda x, y: low24(x, "s32") * low24(y, "s32")),
    "mul24.hi.u32": (32, 2, lambda x, y: low24(x, "u32") * low24(y, "u32") >> 16),
    "mul24.hi.s32": (32, 2, lambda x, y: low24(x, "s32") * low24(y, "s32") >> 16),
    "mad24.lo.u32": (32, 3, lambda x, y, c: low24(x, "u32") * low24(y, "u32") + c),
    "mad24.hi.s32": (32, 3, lambda x, y, c: (low24(x, "s32") * low24(y, "s32") >> 16) + c),
    "cnot.b32": (32, 1, lambda x: x == 0),
    "cnot.b16": (16, 1, lambda x: x == 0),
    "cnot.b64": (64, 1, lambda x: x == 0),
    "szext.wrap.s32": (32, 2, lambda x, n: extend(x, n, "s32", True)),
    "szext.clamp.s32": (32, 2, lambda x, n: extend(x, n, "s32", False)),
    "szext.wrap.u32": (32, 2, lambda x, n: extend(x, n, "u32", True)),
    "szext.clamp.u32": (32, 2, lambda x, n: extend(x, n, "u32", False)),
    "fns.b32": (32, 3, nth_set),
}


@pytest.mark.parametrize("name", INTEGER)
def test_integers(name: str, seed: int) -> None:
    bits, count, model = INTEGER[name]
    data = inputs(count, bits, np.random.default_rng(seed))
    if name == "fns.b32":  # few steps; bases within the word where there are none, as the ISA leaves others open
        data[2] = (data[2] % 9 + 2**32 - 4) % 2**32
        data[1] = data[1] % np.where(data[2] == 0, 32, 34).astype(np.uint64)
    operands = ", ".join(["{a}", "{b}", "{c}"][:count])
    check(f"{name} {{d}}, {operands};", f"b{bits}", [f"b{bits}"] * count, data, model)


@pytest.mark.parametrize("combine", ["and", "or"])
@pytest.mark.parametrize("table", [0x00, 0x80, 0xE8, 0x96, 0xFF, 0x2A])
def test_lop3_with_a_predicate(table: int, combine: str, seed: int) -> None:
    """The predicate says whether any bit of the result is set, combined with another."""
    data = inputs(3, 32, np.random.default_rng(seed))
    data[2][::3] = data[0][::3]

    def model(x: int, y: int, z: int, negated: bool) -> int:
        d = 0
        for k in range(8):
            if table >> k & 1:
                d |= (x if k & 4 else ~x) & (y if k & 2 else ~y) & (z if k & 1 else ~z)
        q = (y & 1) ^ negated
        p = int(d % 2**32 != 0)
        return d ^ (0xF0F0 if {"and": p & q, "or": p | q}[combine] else 0)

    for negated in (False, True):
        text = f"""and.b32 {{d}}, {{b}}, 1; setp.ne.u32 %r, {{d}}, 0;
  lop3.{combine}.b32 {{d}}|%s, {{a}}, {{b}}, {{c}}, {table}, {"!" * negated}%r; @%s xor.b32 {{d}}, {{d}}, 0xf0f0;"""
        check(text, "b32", ["b32"] * 3, data, lambda *r, negated=negated: model(*r, negated))


NUMBERS = [0.0, -0.0, 1.0, -1.0, 1.5, 2.0, -3.25, 1e-40, -1e-40, 1e38, math.inf, -math.inf, math.nan, 6e-8, 65504.0]
ONE = {"f32": 0x3F800000, "f16": 0x3C00, "bf16": 0x3F80, "u32": 2**32 - 1, "s32": 2**32 - 1, "u16": 0xFFFF}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64}
COMPARE = {
    "eq": lambda x, y: x == y, "ltu": lambda x, y: not x >= y, "gt": lambda x, y: x > y,
    "num": lambda x, y: x == x and y == y, "nan": lambda x, y: x != x or y != y, "ne": lambda x, y: x < y or x > y,
}  # fmt: skip


def codes(t: str) -> tuple[np.ndarray, list[float]]:
    x = torch.tensor(NUMBERS, dtype=torch.float64).to(DTYPES[t])
    view = {8: torch.int64, 4: torch.int32, 2: torch.int16}[x.element_size()]
    bits = x.view(view).numpy().astype(np.int64).astype(np.uint64)
    return bits & np.uint64(2 ** (8 * x.element_size()) - 1), x.double().tolist()


@pytest.mark.parametrize("source", ["f32", "f16", "bf16", "f64"])
@pytest.mark.parametrize("result", ["u32", "s32", "f32"])
@pytest.mark.parametrize("name", COMPARE)
def test_set_of_numbers(name: str, result: str, source: str) -> None:
    if result == "f32" and source in ("f16", "bf16"):
        pytest.skip("PTX has no such instruction")
    bits, values = codes(source)
    n = len(values)
    data = [np.repeat(bits, n), np.tile(bits, n)]
    lookup = {int(b): v for b, v in zip(bits, values, strict=True)}
    kind = f"b{source.lstrip('bf')}"
    check(f"set.{name}.{result}.{source} {{d}}, {{a}}, {{b}};", "b32", [kind] * 2, data,
          lambda x, y: ONE[result] if COMPARE[name](lookup[x], lookup[y]) else 0)  # fmt: skip


@pytest.mark.parametrize("result", ["f16", "bf16", "u16"])
def test_set_of_short_results(result: str) -> None:
    source = "bf16" if result == "bf16" else "f16"
    bits, values = codes(source)
    data = [np.repeat(bits, len(bits)), np.tile(bits, len(bits))]
    lookup = {int(b): v for b, v in zip(bits, values, strict=True)}
    check(f"set.gt.{result}.{source} {{d}}, {{a}}, {{b}};", "b16", ["b16"] * 2, data,
          lambda x, y: ONE[result] if lookup[x] > lookup[y] else 0)  # fmt: skip
    both = [d | d[::-1] << np.uint64(16) for d in data]

    def pairs(x: int, y: int) -> int:
        return sum((ONE[source] if lookup[x >> s & 0xFFFF] > lookup[y >> s & 0xFFFF] else 0) << s for s in (0, 16))

    check(f"set.gt.{source}x2.{source}x2 {{d}}, {{a}}, {{b}};", "b32", ["b32"] * 2, both, pairs)
    if result != "u16":  # cuda_fp16.h's masks: of 16 bits for each half
        set_word = f"set.gt.u32.{source}x2 {{d}}, {{a}}, {{b}};"
        check(set_word, "b32", ["b32"] * 2, both, lambda x, y: pairs(x, y) // ONE[source] * 0xFFFF)


@pytest.mark.parametrize("combine", ["and", "or", "xor"])
def test_set_combined(combine: str, seed: int) -> None:
    data = inputs(2, 32, np.random.default_rng(seed))
    f = {"and": lambda p, q: p and q, "or": lambda p, q: p or q, "xor": lambda p, q: p != q}[combine]
    text = f"and.b32 {{d}}, {{b}}, 1; setp.ne.u32 %r, {{d}}, 0; set.lt.{combine}.u32.s32 {{d}}, {{a}}, {{b}}, !%r;"
    check(text, "b32", ["b32"] * 2, data,
          lambda x, y: 2**32 - 1 if f(signed(x, 32) < signed(y, 32), not y & 1) else 0)  # fmt: skip


TESTS = {
    "finite": math.isfinite, "infinite": math.isinf, "number": lambda x: not math.isnan(x), "notanumber": math.isnan,
}  # fmt: skip


@pytest.mark.parametrize("t", ["f32", "f64"])
@pytest.mark.parametrize("name", [*TESTS, "normal", "subnormal"])
def test_kinds_of_numbers(name: str, t: str) -> None:
    bits, values = codes(t)
    least = {"f32": 2.0**-126, "f64": 2.0**-1022}[t]
    if t == "f64":
        bits, values = np.append(bits, np.uint64(5)), [*values, 5 * 2.0**-1074]
    lookup = {int(b): v for b, v in zip(bits, values, strict=True)}
    tests = TESTS | {
        "normal": lambda x: math.isfinite(x) and abs(x) >= least,
        "subnormal": lambda x: x != 0 and abs(x) < least,
    }
    check(f"testp.{name}.{t} %r, {{a}}; selp.b32 {{d}}, 1, 0, %r;", "b32", [f"b{t[1:]}"], [bits],
          lambda x: int(tests[name](lookup[x])))  # fmt: skip


LIMITS = ["fma.rn.relu.f16", "fma.rn.ftz.f16", "fma.rn.ftz.sat.f16", "fma.rn.relu.bf16", "fma.rn.sat.f16",
          "add.ftz.f16", "mul.rn.ftz.sat.f16", "sub.sat.f16"]  # fmt: skip


def rounded(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """a + b of doubles, rounded once: torch goes by way of double and float, and rounds in each."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)  # what the sum in double lost, exactly
    near = total.float()
    rest = total - near.double()
    rest = torch.where(rest != 0, rest, lost)
    inexact = rest.isfinite() & (rest != 0) & near.isfinite() & (near != 0)
    # To odd: the float towards zero, its last bit set, falls on no midpoint of a shorter type.
    near = torch.where(inexact & (rest.signbit() != near.signbit()), near.nextafter(near * 0), near)
    odd = (near.view(torch.int32) | 1).view(torch.float32)
    return torch.where(inexact, odd, near).to(dtype)


@pytest.mark.parametrize("pairs", [False, True], ids=["one", "two"])
@pytest.mark.parametrize("name", LIMITS)
def test_halves_with_limits(name: str, pairs: bool, seed: int) -> None:
    kind = "bf16" if "bf16" in name else "f16"
    g = torch.Generator().manual_seed(seed)
    wild = torch.randn(600, generator=g) * 2.0 ** torch.randint(-20, 6, (600,), generator=g)
    x = torch.cat([torch.tensor(NUMBERS), wild]).to(DTYPES[kind])
    three = name.startswith("fma")
    operands = [x, x.roll(7), x.roll(31)][: 3 if three else 2]
    least = 2.0**-14 if kind == "f16" else 2.0**-126

    def flushed(v: torch.Tensor) -> torch.Tensor:
        return torch.where(v.abs() < least, v * 0, v) if ".ftz" in name else v

    a, b, *c = (flushed(o.double()) for o in operands)
    exact = a * b + c[0] if three else {"add": a + b, "mul": a * b, "sub": a - b}[name[:3]]
    want = flushed((rounded(a * b, c[0], DTYPES[kind]) if three else exact.to(DTYPES[kind])).double())
    if ".relu" in name:
        want = torch.where(want <= 0, 0.0, want)
    if ".sat" in name:
        want = want.nan_to_num(0.0).clamp(0, 1) + 0.0
    bits = [o.view(torch.int16).numpy().astype(np.int64) & 0xFFFF for o in operands]
    if pairs:
        bits = [v | v[::-1] << 16 for v in bits]
    t = "b32" if pairs else "b16"
    text = f"{name}{'x2' * pairs} {{d}}, {', '.join(['{a}', '{b}', '{c}'][: len(bits)])};"
    assembled(text, t, [t] * len(bits))
    got = run_elementwise(text, t, [(t, v) for v in bits])
    low = torch.from_numpy((got & 0xFFFF).astype(np.uint16).view(np.int16)).view(DTYPES[kind]).double()
    # numpy compares NaN as equal
    np.testing.assert_array_equal(low.numpy(), want.numpy())
    np.testing.assert_array_equal(low.signbit()[~low.isnan()].numpy(), want.signbit()[~low.isnan()].numpy())
    if pairs:
        np.testing.assert_array_equal((got >> 16)[::-1], got & 0xFFFF)


@pytest.mark.parametrize("nan", ["", ".NaN"])
@pytest.mark.parametrize("t", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("op", ["min", "max"])
def test_extremes_of_magnitudes(op: str, t: str, nan: str) -> None:
    bits, values = codes(t)
    data = [np.repeat(bits, len(bits)), np.tile(bits, len(bits))]
    pick = {"min": torch.fmin, "max": torch.fmax}[op] if not nan else {"min": torch.minimum, "max": torch.maximum}[op]
    x = torch.tensor(values, dtype=torch.float64)
    a, b = x.repeat_interleave(len(x)), x.repeat(len(x))
    size = int(t.lstrip("bf"))
    text = f"{op}{nan}.xorsign.abs.{t} {{d}}, {{a}}, {{b}};"
    assembled(text, f"b{size}", [f"b{size}"] * 2)
    got = run_elementwise(text, f"b{size}", [(f"b{size}", d) for d in data], within=but_nan(t))
    view = torch.from_numpy(got.view({16: np.int16, 32: np.int32}[size])).view(DTYPES[t]).double()
    want = pick(a.abs(), b.abs()) * torch.where(a.signbit() != b.signbit(), -1.0, 1.0)
    known = ~(a.isnan() | b.isnan())  # the sign of NaN is not told
    np.testing.assert_array_equal(view[known].numpy(), want[known].numpy())
    np.testing.assert_array_equal(view[known].signbit().numpy(), want[known].signbit().numpy())
    np.testing.assert_array_equal(view.abs().numpy(), want.abs().numpy())
