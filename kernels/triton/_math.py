"""Scalar functions in plain arithmetic: exp, expm1, log1p, tanh, sigmoid and the normal distribution.

Polynomials over a reduced argument, evaluated with explicit fma, so that the interpreter and the GPU do
the same arithmetic: what is measured on one holds on the other. Errors stay near one unit in the last
place in f32 and f64. Triton's own exp is ``ex2.approx(x * log2e)``, off by 60 ulp at x = 80.
Coefficients are Chebyshev fits made with mpmath; the interval stands beside each.
"""

import triton
import triton.language as tl

from ._common import constant

# (e^r - 1 - r) / r^2 on |r| <= ln2 / 2
_EXP_F32 = constant((0.00019890991, 0.001393364975, 0.00833331048, 0.041666466743, 0.166666671634, 0.5))
_EXP_F64 = constant(
    (
        2.0914686968086876e-09,
        2.5105217004720745e-08,
        2.75572736431103e-07,
        2.7557255400206422e-06,
        2.4801587325547743e-05,
        0.00019841269874820627,
        0.0013888888888883748,
        0.008333333333326136,
        0.04166666666666667,
        0.1666666666666667,
        0.5,
    )
)
# (2 atanh(s) / s - 2) / s^2 in s^2 on [0, 0.0405]
_LOG_F32 = constant((0.2376734018, 0.28531739115, 0.40000322461, 0.66666668653))
_LOG_F64 = constant(
    (
        0.13629110721861268,
        0.13207080082069364,
        0.1538900212516573,
        0.18181734246400322,
        0.2222222309164114,
        0.2857142856701462,
        0.40000000000008523,
        0.6666666666666666,
    )
)
# (tanh(x) / x - 1) / x^2 in x^2 on [0, 0.36]
_TANH_F32 = constant(
    (
        0.0023707656655460596,
        -0.008410071022808552,
        0.021788321435451508,
        -0.05396155267953873,
        0.13333313167095184,
        -0.3333333432674408,
    )
)
_TANH_F64 = constant(
    (
        -2.622223992400359e-06,
        1.2606082506231025e-05,
        -3.7455026133315814e-05,
        9.62435984783182e-05,
        -0.0002389588822245776,
        0.0005899975134262517,
        -0.0014558307624244699,
        0.0035921277411351256,
        -0.008863235514397341,
        0.02186948853566979,
        -0.05396825396824606,
        0.13333333333333328,
        -0.3333333333333333,
    )
)
# (Phi(x) - 1/2) / x in x^2 on [0, 1]
_CENTRE_F32 = constant(
    (
        5.372643272494315e-07,
        -9.274401236325502e-06,
        0.0001153207485913299,
        -0.0011872887844219804,
        0.009973550215363503,
        -0.06649038195610046,
        0.3989422917366028,
    )
)
# (a + 1) Phi(-a) e^(a^2/2) in w = (a - 4) / (a + 4), a on [1, 15]
_TAIL_F32 = constant(
    (
        -6.953647243790329e-05,
        0.0006247839774005115,
        -0.00029619887936860323,
        -0.0049816276878118515,
        0.01793798990547657,
        -0.03220038488507271,
        0.028600230813026428,
        0.01399974524974823,
        -0.09670347720384598,
        0.472053200006485,
    )
)

# (a + 5) Phi(-a) e^(a^2/2) in (a - 5) / (a + 5), a on [0, 39]; the coefficients of kernels/math/elementary.h
_TAIL_F64 = constant(
    (
        2.0139270806593371e-09,
        7.1820032062251202e-09,
        -1.0210896273035897e-08,
        -6.5319929612535144e-08,
        4.3612281920760416e-08,
        4.3268655643869254e-07,
        -3.3774302296823802e-07,
        -2.7690552946855539e-06,
        3.9814911513432284e-06,
        1.6681144872254257e-05,
        -4.9763010198528583e-05,
        -5.9375711291016687e-05,
        0.00054489910585771284,
        -0.00079786940147876613,
        -0.0029933767756942214,
        0.020795066800242321,
        -0.06911863870595214,
        0.16502036617036153,
        -0.3135331566713157,
        0.49530561596997702,
        -0.66538250289005663,
        0.76919304975006297,
    )
)


@triton.jit
def horner(x, COEFFICIENTS: tl.constexpr):
    """Polynomial in x, highest power first."""
    r = tl.full(x.shape, COEFFICIENTS[0], x.dtype)
    for i in tl.static_range(1, len(COEFFICIENTS)):
        r = tl.fma(r, x, tl.full(x.shape, COEFFICIENTS[i], x.dtype))
    return r


@triton.jit
def divide(a, b):
    """a / b rounded to nearest; Triton's f32 "/" is ``div.full``, which is not."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def _power_of_two(n):
    """2^n for a whole number n in the type's normal range."""
    if n.dtype == tl.float64:
        return ((n.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        return ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _reduce(hi, lo):
    """hi + lo = n ln2 + r: returns n (whole, 0 for NaN) and e^r - 1; hi is clamped to where e^x is 0 or inf."""
    # The high part of ln2 has trailing zeros, so n * high is exact for every n that can occur.
    if hi.dtype == tl.float64:
        x = tl.where(hi > 710.0, 710.0, tl.where(hi < -746.0, -746.0, hi))
        n = tl.floor(x * 1.4426950408889634 + 0.5)
        r = (x - n * 0.693147180369123816490) + (lo - n * 1.90821492927058770002e-10)
        p = tl.fma(r * r, horner(r, _EXP_F64), r)
    else:
        x = tl.where(hi > 89.0, 89.0, tl.where(hi < -104.0, -104.0, hi))
        n = tl.floor(x * 1.4426950408889634 + 0.5)
        r = (x - n * 0.693145751953125) + (lo - n * 1.428606765330187e-06)
        p = tl.fma(r * r, horner(r, _EXP_F32), r)
    return tl.where(x == x, n, 0.0), p


@triton.jit
def exp_sum(hi, lo):
    """e^(hi + lo), |lo| much smaller than |hi|: for arguments known to more than the type's precision."""
    n, p = _reduce(hi, lo)
    # Two factors: 2^n itself leaves the normal range where the product is subnormal or just below overflow.
    half = tl.floor(n * 0.5)
    return (1.0 + p) * _power_of_two(half) * _power_of_two(n - half)


@triton.jit
def exp(x):
    return exp_sum(x, tl.zeros_like(x))


@triton.jit
def expm1(x):
    n, p = _reduce(x, tl.zeros_like(x))
    half = tl.floor(n * 0.5)
    big = (1.0 + p) * _power_of_two(half) * _power_of_two(n - half) - 1.0
    scale = _power_of_two(tl.where(n > 24.0, 24.0, tl.where(n < -60.0, -60.0, n)))
    small = tl.fma(p, scale, scale - 1.0)
    # Zero keeps its sign.
    return tl.where(x == 0.0, x, tl.where(n > 24.0, big, small))


@triton.jit
def log1p_unit(z):
    """log(1 + z) for z in [0, 1]: f = z, or (z - 1) / 2 and a ln2 in front, both free of rounding."""
    far = z > 0.5
    f = tl.where(far, (z - 1.0) * 0.5, z)
    h = 0.5 * f * f
    s = divide(f, 2.0 + f)
    w = s * s
    if z.dtype == tl.float64:
        t = s * (h + w * horner(w, _LOG_F64))
        return tl.where(far, 0.693147180369123816490 - ((h - (t + 1.90821492927058770002e-10)) - f), f - (h - t))
    else:
        t = s * (h + w * horner(w, _LOG_F32))
        return tl.where(far, 0.693145751953125 - ((h - (t + 1.428606765330187e-06)) - f), f - (h - t))


@triton.jit
def _tanh_small(x):
    """tanh(x) - x for |x| <= 0.6."""
    w = x * x
    if x.dtype == tl.float64:
        return x * w * horner(w, _TANH_F64)
    else:
        return x * w * horner(w, _TANH_F32)


@triton.jit
def tanh(x):
    a = tl.abs(x)
    e = exp(a + a)
    far = 1.0 - divide(tl.full(x.shape, 2.0, x.dtype), e + 1.0)
    return tl.where(a < 0.55, x + _tanh_small(x), tl.where(x < 0, -far, far))


@triton.jit
def tanh_shrink(x):
    """x - tanh(x), without the cancellation near zero."""
    return tl.where(tl.abs(x) < 0.55, -_tanh_small(x), x - tanh(x))


@triton.jit
def tanh_slope(x):
    """1 - tanh(x)^2 = 4 z / (1 + z)^2, z = e^(-2|x|)."""
    z = exp(-2.0 * tl.abs(x))
    return divide(4.0 * z, (1.0 + z) * (1.0 + z))


@triton.jit
def sigmoid(x):
    z = exp(-tl.abs(x))
    return divide(tl.where(x < 0, z, 1.0), 1.0 + z)


@triton.jit
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    return tl.where(x < 0, 0.0, x) + log1p_unit(exp(-tl.abs(x)))


@triton.jit
def normal_density(x):
    """e^(-x^2/2) / sqrt(2 pi); x^2 is carried to twice the precision, as e^-y turns its error into a relative one."""
    y = x * x
    e = tl.fma(x, x, -y)
    # x * x of an infinity minus itself is NaN.
    return exp_sum(-0.5 * y, tl.where(y < 1000.0, -0.5 * e, 0.0)) * 0.3989422804014327


@triton.jit
def normal_tail(a):
    """Phi(-a) for a >= 1 (f64: a >= 0), relative accuracy down to the underflow."""
    if a.dtype == tl.float64:
        a = tl.where(a > 39.0, 39.0, a)
        p = divide(horner(divide(a - 5.0, a + 5.0), _TAIL_F64), a + 5.0)
    else:
        a = tl.where(a > 15.0, 15.0, a)
        p = divide(horner(divide(a - 4.0, a + 4.0), _TAIL_F32), a + 1.0)
    y = a * a
    return exp_sum(-0.5 * y, -0.5 * tl.fma(a, a, -y)) * p


@triton.jit
def normal_cdf(x):
    """Phi(x) by the tail, where 1 + erf(x) would cancel."""
    a = tl.abs(x)
    if x.dtype == tl.float64:
        tail = normal_tail(a)
        return tl.where(x < 0, tail, 1.0 - tail)
    else:
        tail = normal_tail(tl.where(a < 1.0, 1.0, a))
        centre = tl.fma(x, horner(tl.where(a < 1.0, x * x, 1.0), _CENTRE_F32), 0.5)
        return tl.where(a < 1.0, centre, tl.where(x < 0, tail, 1.0 - tail))
