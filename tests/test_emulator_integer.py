"""The emulator's integer, logic, shift and bit-field instructions against Python's integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DTYPES, HEADER, HOPPER, bits_of, run_elementwise

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]


def draw(type_: str, generator: np.random.Generator, n: int = 400) -> np.ndarray:
    """Edge values and random bits of a type."""
    width = bits_of(type_)
    top = 2**width
    e = [
        0,
        1,
        2,
        3,
        7,
        top - 1,
        top - 2,
        top // 2,
        top // 2 - 1,
        top // 2 + 1,
        0x55555555 % top,
        31,
        32,
        33,
        63,
        64,
        255,
    ]
    wild = generator.integers(0, top, n, dtype=np.uint64, endpoint=False) if width < 64 else generator.bytes(8 * n)
    wild = np.frombuffer(wild, np.uint64) if isinstance(wild, bytes) else wild
    small = generator.integers(0, 40, n // 4, dtype=np.uint64)
    values = np.concatenate([np.array([x % top for x in e], np.uint64), wild, small])
    return generator.permutation(np.concatenate([values, values]))[:700].astype(DTYPES[width])


def number(x: int, type_: str) -> int:
    width = bits_of(type_)
    x &= 2**width - 1
    return x - 2**width if type_[0] == "s" and x >> (width - 1) else x


def check(
    instruction: str,
    result: str,
    sources: list[str],
    model: Callable[..., int],
    seed: int,
    limit: dict[int, int] | None = None,
    nonzero: int | None = None,
) -> None:
    """model(numbers of the sources) modulo the result's width; `nonzero`: an operand that must be."""
    generator = np.random.default_rng(seed)
    inputs = [draw(t, generator) for t in sources]
    for k, most in (limit or {}).items():
        inputs[k] = (inputs[k] % most).astype(inputs[k].dtype)
    if nonzero is not None:
        inputs[nonzero] |= inputs[nonzero] == 0
    n = min(map(len, inputs))
    inputs = [i[:n] for i in inputs]
    got = run_elementwise(instruction, result, list(zip(sources, inputs, strict=True)))
    for row in zip(got.tolist(), *(i.tolist() for i in inputs), strict=True):
        g, *bits = row
        operands = [number(b, t) for b, t in zip(bits, sources, strict=True)]
        want = model(*operands) % 2 ** bits_of(result)
        assert g == want, f"{instruction} of {operands}: 0x{g:x}, expected 0x{want:x}, seed {seed}"


TYPES = ["s16", "u16", "s32", "u32", "s64", "u64"]


def toward_zero(x: int, y: int) -> int:
    q = abs(x) // abs(y)
    return q if (x < 0) == (y < 0) else -q


SAME: dict[str, Callable[..., int]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul.lo": lambda x, y: x * y,
    "min": min,
    "max": max,
    "div": toward_zero,
    "rem": lambda x, y: x - toward_zero(x, y) * y,
}


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("op", SAME)
def test_arithmetic(op: str, type_: str, seed: int) -> None:
    nonzero = 1 if op in ("div", "rem") else None
    check(f"{op}.{type_} {{d}}, {{a}}, {{b}};", type_, [type_, type_], SAME[op], seed, nonzero=nonzero)


@pytest.mark.emulator_only("the ISA does not say what a division by zero gives")
@pytest.mark.parametrize("type_", TYPES)
def test_division_by_zero(type_: str, seed: int) -> None:
    for op, model in (("div", lambda x, y: -1), ("rem", lambda x, y: x)):
        check(f"{op}.{type_} {{d}}, {{a}}, {{b}};", type_, [type_, type_], model, seed, limit={1: 1})


@pytest.mark.parametrize("type_", TYPES)
def test_high_and_wide(type_: str, seed: int) -> None:
    width = bits_of(type_)
    check(f"mul.hi.{type_} {{d}}, {{a}}, {{b}};", type_, [type_] * 2, lambda x, y: (x * y) >> width, seed)
    check(f"mad.lo.{type_} {{d}}, {{a}}, {{b}}, {{c}};", type_, [type_] * 3, lambda x, y, z: x * y + z, seed)
    check(
        f"mad.hi.{type_} {{d}}, {{a}}, {{b}}, {{c}};", type_, [type_] * 3, lambda x, y, z: ((x * y) >> width) + z, seed
    )
    if width < 64:
        wide = f"{type_[0]}{2 * width}"
        check(f"mul.wide.{type_} {{d}}, {{a}}, {{b}};", wide, [type_] * 2, lambda x, y: x * y, seed)
        check(
            f"mad.wide.{type_} {{d}}, {{a}}, {{b}}, {{c}};", wide, [type_, type_, wide], lambda x, y, z: x * y + z, seed
        )


def test_saturating_sums(seed: int) -> None:
    def clamp(x: int) -> int:
        return max(-(2**31), min(2**31 - 1, x))

    check("add.sat.s32 {d}, {a}, {b};", "s32", ["s32"] * 2, lambda x, y: clamp(x + y), seed)
    check("sub.sat.s32 {d}, {a}, {b};", "s32", ["s32"] * 2, lambda x, y: clamp(x - y), seed)


@pytest.mark.parametrize("type_", ["s16", "s32", "s64"])
def test_negation(type_: str, seed: int) -> None:
    check(f"neg.{type_} {{d}}, {{a}};", type_, [type_], lambda x: -x, seed)
    check(f"abs.{type_} {{d}}, {{a}};", type_, [type_], abs, seed)


@pytest.mark.parametrize("type_", ["b16", "b32", "b64"])
def test_logic_and_shifts(type_: str, seed: int) -> None:
    width = bits_of(type_)
    check(f"and.{type_} {{d}}, {{a}}, {{b}};", type_, [type_] * 2, lambda x, y: x & y, seed)
    check(f"or.{type_} {{d}}, {{a}}, {{b}};", type_, [type_] * 2, lambda x, y: x | y, seed)
    check(f"xor.{type_} {{d}}, {{a}}, {{b}};", type_, [type_] * 2, lambda x, y: x ^ y, seed)
    check(f"not.{type_} {{d}}, {{a}};", type_, [type_], lambda x: ~x, seed)
    # a shift by the width or more gives zero, or the sign
    check(f"shl.{type_} {{d}}, {{a}}, {{b}};", type_, [type_, "u32"], lambda x, n: x << n if n < width else 0, seed)
    for t in (f"u{width}", f"s{width}"):
        check(f"shr.{t} {{d}}, {{a}}, {{b}};", t, [t, "u32"], lambda x, n: x >> min(n, width), seed)


@pytest.mark.parametrize("mode", ["clamp", "wrap"])
def test_funnel_shifts(mode: str, seed: int) -> None:
    def amount(n: int) -> int:
        return min(n, 32) if mode == "clamp" else n % 32

    check(f"shf.l.{mode}.b32 {{d}}, {{a}}, {{b}}, {{c}};", "b32", ["b32", "b32", "u32"],
          lambda low, high, n: ((high << 32 | low) << amount(n)) >> 32, seed)  # fmt: skip
    check(f"shf.r.{mode}.b32 {{d}}, {{a}}, {{b}}, {{c}};", "b32", ["b32", "b32", "u32"],
          lambda low, high, n: (high << 32 | low) >> amount(n), seed)  # fmt: skip


@pytest.mark.parametrize("width", [32, 64])
def test_counting(width: int, seed: int) -> None:
    t = f"b{width}"
    check(f"popc.{t} {{d}}, {{a}};", "u32", [t], lambda x: x.bit_count(), seed)
    check(f"clz.{t} {{d}}, {{a}};", "u32", [t], lambda x: width - x.bit_length(), seed)
    check(f"brev.{t} {{d}}, {{a}};", t, [t], lambda x: int(f"{x:0{width}b}"[::-1], 2), seed)
    for s in (f"u{width}", f"s{width}"):
        check(f"bfind.{s} {{d}}, {{a}};", "u32", [s], lambda x: (~x if x < 0 else x).bit_length() - 1, seed)

        def amount(x: int) -> int:
            m = ~x if x < 0 else x
            return width - m.bit_length() if m else -1

        check(f"bfind.shiftamt.{s} {{d}}, {{a}};", "u32", [s], amount, seed)


@pytest.mark.parametrize("width", [32, 64])
def test_fields(width: int, seed: int) -> None:
    top = width - 1

    def extract(x: int, position: int, length: int) -> int:
        position, length = position & 255, length & 255
        bits = x & (2**width - 1)
        sign = bits >> min(position + length - 1, top) & 1 if signed and length else 0
        r = 0
        for i in range(width):
            r |= ((bits >> (position + i) & 1) if i < length and position + i <= top else sign) << i
        return r

    for signed in (False, True):
        t = f"{'s' if signed else 'u'}{width}"
        check(f"bfe.{t} {{d}}, {{a}}, {{b}}, {{c}};", t, [t, "u32", "u32"], extract, seed)

    def insert(x: int, into: int, position: int, length: int) -> int:
        position, length = position & 255, length & 255
        for i in range(length):
            if position + i <= top:
                into = into & ~(1 << (position + i)) | (x >> i & 1) << (position + i)
        return into

    t = f"b{width}"
    check(f"bfi.{t} {{d}}, {{a}}, {{b}}, {{c}}, {{e}};", t, [t, t, "u32", "u32"], insert, seed)


def test_permute(seed: int) -> None:
    def chosen(x: int, y: int, selector: int) -> int:
        data = (y << 32 | x).to_bytes(8, "little")
        out = []
        for k in range(4):
            s = selector >> 4 * k & 15
            byte = data[s & 7]
            out.append((255 if byte & 128 else 0) if s & 8 else byte)
        return int.from_bytes(bytes(out), "little")

    check("prmt.b32 {d}, {a}, {b}, {c};", "b32", ["b32", "b32", "u32"], chosen, seed)
    # the table of the PTX ISA: bytes from the highest to the lowest
    modes = {
        "f4e": ["3210", "4321", "5432", "6543"],
        "b4e": ["5670", "6701", "7012", "0123"],
        "rc8": ["0000", "1111", "2222", "3333"],
        "ecl": ["3210", "3211", "3222", "3333"],
        "ecr": ["0000", "1110", "2210", "3210"],
        "rc16": ["1010", "3232", "1010", "3232"],
    }
    for mode, rows in modes.items():
        check(f"prmt.b32.{mode} {{d}}, {{a}}, {{b}}, {{c}};", "b32", ["b32", "b32", "u32"],
              lambda x, y, n, rows=rows: chosen(x, y, int(rows[n & 3], 16)), seed)  # fmt: skip


@pytest.mark.parametrize("table", [0x00, 0x80, 0xFE, 0x96, 0xE8, 0xCA, 0x1B, 0xF0, 0xCC, 0xAA])
def test_lop3(table: int, seed: int) -> None:
    def model(x: int, y: int, z: int) -> int:
        return sum((table >> ((x >> i & 1) << 2 | (y >> i & 1) << 1 | (z >> i & 1)) & 1) << i for i in range(32))

    check(f"lop3.b32 {{d}}, {{a}}, {{b}}, {{c}}, {table};", "b32", ["b32"] * 3, model, seed)


def test_masks(seed: int) -> None:
    def model(position: int, length: int) -> int:
        return sum(1 << i for i in range(min(position, 32), min(position + length, 32)))

    check("bmsk.clamp.b32 {d}, {a}, {b};", "b32", ["u32", "u32"], model, seed)
    check("bmsk.wrap.b32 {d}, {a}, {b};", "b32", ["u32", "u32"], lambda p, n: model(p % 32, n % 32), seed)


COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNSIGNED = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
PREDICATE = "setp.{c}.{t} %q, {{a}}, {{b}}; selp.u32 {{d}}, 1, 0, %q;"


@pytest.mark.parametrize("type_", TYPES)
def test_comparisons(type_: str, seed: int) -> None:
    names = COMPARISONS | (UNSIGNED if type_[0] == "u" else {})
    for name, symbol in names.items():
        model = eval(f"lambda x, y: int(x {symbol} y)")
        check(PREDICATE.format(c=name, t=type_), "u32", [type_, type_], model, seed)


@pytest.mark.parametrize("type_", ["f32", "f64", "f16", "bf16"])
def test_floating_comparisons(type_: str, seed: int) -> None:
    from neurokern.testing.exact import FORMATS, cases

    f, run = FORMATS[type_], partial(run_elementwise, header=HOPPER if type_ == "bf16" else HEADER)
    x, y = cases(f, np.random.default_rng(seed), 2)
    a, b = ([f.value(int(v)) for v in i] for i in (x, y))
    either = [math.isnan(p) or math.isnan(q) for p, q in zip(a, b, strict=True)]
    for name, symbol in COMPARISONS.items():
        plain = [eval(f"p {symbol} q", {"p": p, "q": q}) for p, q in zip(a, b, strict=True)]
        # the ordered ones are false for NaN, those with u true
        for suffix, on_nan in (("", False), ("u", True)):
            got = run(PREDICATE.format(c=name + suffix, t=type_), "u32", [(type_, x), (type_, y)])
            want = [on_nan if e else p for e, p in zip(either, plain, strict=True)]
            assert got.tolist() == [int(w) for w in want], f"setp.{name}{suffix}.{type_}, seed {seed}"
    for name, want in (("num", [not e for e in either]), ("nan", either)):
        got = run(PREDICATE.format(c=name, t=type_), "u32", [(type_, x), (type_, y)])
        assert got.tolist() == [int(w) for w in want], name


@pytest.mark.parametrize("type_", ["f16", "bf16"])
def test_comparisons_of_pairs(type_: str, seed: int) -> None:
    """p is the lower halves' comparison, q the upper ones'."""
    from neurokern.testing.exact import FORMATS, cases

    f = FORMATS[type_]
    x, y = (i[: len(i) // 2 * 2] for i in cases(f, np.random.default_rng(seed), 2))
    a, b = (i[::2] | i[1::2] << np.uint64(16) for i in (x, y))
    text = "setp.{c}.{t}x2 %q|%r, {{a}}, {{b}}; .reg .u32 %x; selp.u32 %x, 1, 0, %q; selp.u32 {{d}}, 2, 0, %r;"
    text += " or.b32 {{d}}, {{d}}, %x;"
    for name, symbol in COMPARISONS.items():
        header = HOPPER if type_ == "bf16" else HEADER
        got = run_elementwise(text.format(c=name, t=type_), "u32", [(f"{type_}x2", v) for v in (a, b)], header)
        p, q = ([f.value(int(v)) for v in i] for i in (x, y))
        one = [eval(f"u {symbol} v and not (u != u or v != v)", {"u": u, "v": v}) for u, v in zip(p, q, strict=True)]
        assert got.tolist() == [int(low) | 2 * int(high) for low, high in zip(one[::2], one[1::2], strict=True)], name


@pytest.mark.parametrize("combine", ["and", "or", "xor"])
def test_combined_predicates(combine: str, seed: int) -> None:
    """p|q: the comparison and its complement, each combined with a third predicate, here negated."""
    join = {"and": lambda p, q: p & q, "or": lambda p, q: p | q, "xor": lambda p, q: p ^ q}[combine]
    text = (
        f"setp.lt.s32 %q, {{c}}, 0; .reg .u32 %x, %y; setp.lt.{combine}.s32 %r|%s, {{a}}, {{b}}, !%q;"
        " selp.u32 %x, 1, 0, %r; selp.u32 %y, 2, 0, %s; or.b32 {d}, %x, %y;"
    )

    def model(x: int, y: int, z: int) -> int:
        other = int(not z < 0)
        return join(int(x < y), other) | 2 * join(int(x >= y), other)

    check(text, "u32", ["s32"] * 3, model, seed)


def test_slct(seed: int) -> None:
    check("slct.b32.s32 {d}, {a}, {b}, {c};", "b32", ["b32", "b32", "s32"], lambda x, y, c: x if c >= 0 else y, seed)
