"""Floating-point formats in exact arithmetic: what PTX says a result is, computed with fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Format:
    """A binary format by its fields."""

    name: str
    exponent: int
    mantissa: int
    nan: int  # the bits of the NaN that arithmetic gives; 0: any

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent - 1) - 1

    def value(self, bits: int) -> float:
        """As a Python float: exact for every format here."""
        sign = -1.0 if bits >> (self.bits - 1) else 1.0
        e, m = bits >> self.mantissa & (2**self.exponent - 1), bits & (2**self.mantissa - 1)
        if e == 2**self.exponent - 1:
            return sign * math.inf if m == 0 else math.nan
        if e == 0:
            return sign * math.ldexp(m, 1 - self.bias - self.mantissa)
        return sign * math.ldexp(2**self.mantissa + m, e - self.bias - self.mantissa)

    def special(self, x: float) -> int:
        """The bits of a zero, infinity or NaN."""
        if math.isnan(x):
            return self.nan
        sign = int(math.copysign(1, x) < 0) << (self.bits - 1)
        return sign | (0 if x == 0 else (2**self.exponent - 1) << self.mantissa)

    def round(self, x: Fraction, mode: str = "rn") -> int:
        """The bits of a number other than zero, rounded: rn, rz, rm, rp or rna (ties away)."""
        negative, x = x < 0, abs(x)
        sign = int(negative) << (self.bits - 1)
        e = (
            math.floor(math.log2(x))
            if 2**-1000 < x < 2**1000
            else x.numerator.bit_length() - x.denominator.bit_length()
        )
        while Fraction(2) ** e > x:
            e -= 1
        while Fraction(2) ** (e + 1) <= x:
            e += 1
        e = max(e, 1 - self.bias)
        scaled = x / Fraction(2) ** (e - self.mantissa)
        whole, rest = divmod(scaled, 1)
        up = {
            "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1),
            "rna": rest >= Fraction(1, 2),
            "rz": False,
            "rm": negative and rest > 0,
            "rp": not negative and rest > 0,
        }[mode]
        whole = int(whole) + up
        # the exponent field counts from the first normal binade; a carry moves into it by itself
        bits = ((e + self.bias - 1) << self.mantissa) + whole
        infinity = (2**self.exponent - 1) << self.mantissa
        if bits >= infinity:
            stays = mode == "rz" or (mode == "rm" and not negative) or (mode == "rp" and negative)
            bits = infinity - 1 if stays else infinity
        return sign | bits

    def flush(self, bits: int) -> int:
        """Subnormal numbers to zero of their sign."""
        return bits & (1 << (self.bits - 1)) if not bits >> self.mantissa & (2**self.exponent - 1) else bits

    def saturate(self, bits: int) -> int:
        x = self.value(bits)
        one = self.bias << self.mantissa
        return 0 if math.isnan(x) or x <= 0 else one if x >= 1 else bits


F16 = Format("f16", 5, 10, 0x7FFF)
BF16 = Format("bf16", 8, 7, 0x7FFF)
F32 = Format("f32", 8, 23, 0x7FFFFFFF)
F64 = Format("f64", 11, 52, 0)
FORMATS = {f.name: f for f in (F16, BF16, F32, F64)}


def exactly(op: str, f: Format, mode: str, *values: float) -> int:
    """add, sub, mul, div or fma of numbers of the format, rounded once."""
    x, y, *rest = values
    z = rest[0] if rest else 0.0
    if op == "sub":
        y = -y
    if not all(map(math.isfinite, values)) or (op == "div" and y == 0):
        if op in ("add", "sub"):
            return f.special(x + y)
        if op == "div":
            if y == 0 and not math.isnan(x) and x != 0:
                return f.special(math.copysign(math.inf, x) * math.copysign(1, y))
            return f.special(math.nan if y == 0 else x / y)
        if op == "fma" and math.isfinite(x) and math.isfinite(y):
            return f.special(z)
        return f.special(_times(x, y) + z)
    a, b, c = Fraction(x), Fraction(y), Fraction(z)
    exact = {"add": a + b, "sub": a + b, "mul": a * b, "fma": a * b + c}.get(op)
    if op == "div":
        exact = a / b
    if exact != 0:
        return f.round(exact, mode)
    if op in ("mul", "div"):
        return f.special(math.copysign(0.0, math.copysign(1, x) * math.copysign(1, y)))
    first = math.copysign(1, x) if op != "fma" else math.copysign(1, x) * math.copysign(1, y)
    second = math.copysign(1, y) if op != "fma" else math.copysign(1, z)
    both_zero = (a == 0 and b == 0) if op != "fma" else (a * b == 0 and c == 0)
    if both_zero and first == second:
        return f.special(math.copysign(0.0, first))
    return f.special(-0.0 if mode == "rm" else 0.0)


def _times(x: float, y: float) -> float:
    zero_by_infinity = (x == 0 and math.isinf(y)) or (math.isinf(x) and y == 0)
    return math.nan if zero_by_infinity or math.isnan(x) or math.isnan(y) else x * y


def root(f: Format, bits: int, mode: str = "rn") -> int:
    """sqrt, rounded once."""
    x = f.value(bits)
    if math.isnan(x) or x < 0:
        return f.nan
    if x == 0 or math.isinf(x):
        return bits
    exact = Fraction(x)
    # an integer square root with enough digits, and one more for what is left
    scale = 200 + abs(math.frexp(x)[1])
    scaled = exact.numerator * 4**scale // exact.denominator
    r = math.isqrt(scaled)
    left = r * r != scaled or (exact.numerator * 4**scale) % exact.denominator != 0
    return f.round(Fraction(4 * r + int(left), 4 * 2**scale), mode)


def edges(f: Format) -> list[int]:
    """Zeros, subnormals, ones, the largest numbers, infinities and NaN, of both signs."""
    one, top = f.bias << f.mantissa, (2**f.exponent - 1) << f.mantissa
    least = 1 << f.mantissa
    positive = [
        *(0, 1, least - 1, least, least + 1, 3 + least * 5),
        *(one - least, one - 1, one, one + 1, one + least, one + 3 * (1 << (f.mantissa - 1))),
        *(top - least, top - 1, top, top | 1 << (f.mantissa - 1)),
    ]
    return positive + [b | 1 << (f.bits - 1) for b in positive]


def numbers(f: Format, generator: np.random.Generator, n: int) -> np.ndarray:
    """Random bits, and numbers near one."""
    wild = generator.integers(0, 2**f.bits, n // 2, dtype=np.uint64)
    near = generator.integers((f.bias - 3) << f.mantissa, (f.bias + 3) << f.mantissa, n - n // 2, dtype=np.uint64)
    sign = generator.integers(0, 2, n - n // 2, dtype=np.uint64) << np.uint64(f.bits - 1)
    return np.concatenate([wild, near | sign])


def cases(f: Format, generator: np.random.Generator, operands: int, random: int = 300) -> list[np.ndarray]:
    """Bits for each operand: all pairs of edges (a draw of triples), then random ones."""
    e = np.array(edges(f), np.uint64)
    if operands == 1:
        first = [e]
    elif operands == 2:
        grid = np.meshgrid(e, e, indexing="ij")
        first = [g.ravel() for g in grid]
    else:
        first = [generator.choice(e, 900) for _ in range(operands)]
    return [np.concatenate([p, numbers(f, generator, random)]) for p in first]
