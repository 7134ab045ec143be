"""The activations: value ``f``, first derivative ``f_d``, second derivative ``f_dd`` of each.

All take (x, p0, p1) with the parameters already in x's type (f32 or f64). Derivatives at ties follow torch's
backward formulas, second derivatives its double backward.
"""

import triton
import triton.language as tl

from . import _math as m
from ._common import constant

SIXTH = constant(1 / 6)
THIRD = constant(1 / 3)
SELU_SCALE = constant(1.0507009873554804934193349852946)
SELU_ALPHA_SCALE = constant(1.7580993408473768599402175208123)
# sqrt(2 / pi) and sqrt(2 / pi) * 0.044715, twice each: 2 u of tanh(u) is the argument of the sigmoid.
GELU_1 = constant(1.5957691216057307117597842397375)
GELU_3 = constant(0.07135481627260024816)
# The same as the sum of two f32.
GELU_1_HI = constant(1.5957691669464111)
GELU_1_LO = constant(-4.534068032135963e-08)
GELU_3_HI = constant(0.07135481387376785)
GELU_3_LO = constant(2.3988323966106506e-09)


@triton.jit
def zero(x, p0, p1):
    return tl.zeros_like(x)


@triton.jit
def one(x, p0, p1):
    return tl.full(x.shape, 1.0, x.dtype)


@triton.jit
def identity(x, p0, p1):
    return x


@triton.jit
def relu(x, p0, p1):
    return tl.where(x <= 0, 0.0, x)


@triton.jit
def relu_d(x, p0, p1):
    return tl.where(x <= 0, 0.0, one(x, p0, p1))


@triton.jit
def _clamp(x, lo, hi):
    """NaN stays NaN."""
    return tl.where(x < lo, lo, tl.where(x > hi, hi, x))


@triton.jit
def relu6(x, p0, p1):
    return _clamp(x, 0.0, 6.0)


@triton.jit
def relu6_d(x, p0, p1):
    return tl.where((x <= 0) | (x >= 6), 0.0, one(x, p0, p1))


@triton.jit
def leaky_relu(x, p0, p1):
    return tl.where(x > 0, x, x * p0)


@triton.jit
def leaky_relu_d(x, p0, p1):
    return tl.where(x > 0, one(x, p0, p1), p0)


@triton.jit
def elu(x, p0, p1):
    return tl.where(x <= 0, p0 * m.expm1(x), x)


@triton.jit
def elu_d(x, p0, p1):
    return tl.where(x <= 0, p0 * m.exp(x), 1.0)


@triton.jit
def elu_dd(x, p0, p1):
    return tl.where(x < 0, p0 * m.exp(x), 0.0)


@triton.jit
def selu(x, p0, p1):
    return tl.where(x <= 0, SELU_ALPHA_SCALE * m.expm1(x), SELU_SCALE * x)


@triton.jit
def selu_d(x, p0, p1):
    return tl.where(x <= 0, SELU_ALPHA_SCALE * m.exp(x), SELU_SCALE)


@triton.jit
def selu_dd(x, p0, p1):
    return tl.where(x < 0, SELU_ALPHA_SCALE * m.exp(x), 0.0)


@triton.jit
def celu(x, p0, p1):
    return tl.where(x <= 0, p0 * m.expm1(m.divide(x, p0)), x)


@triton.jit
def celu_d(x, p0, p1):
    return tl.where(x <= 0, m.exp(m.divide(x, p0)), 1.0)


@triton.jit
def celu_dd(x, p0, p1):
    return tl.where(x < 0, m.divide(m.exp(m.divide(x, p0)), p0), 0.0)


@triton.jit
def gelu(x, p0, p1):
    return x * m.normal_cdf(x)


@triton.jit
def gelu_d(x, p0, p1):
    return tl.fma(x, m.normal_density(x), m.normal_cdf(x))


@triton.jit
def gelu_dd(x, p0, p1):
    return m.normal_density(x) * (2.0 - x * x)


@triton.jit
def _gelu_sigmoid(x):
    """sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3); in f32 with u to twice the precision."""
    if x.dtype == tl.float64:
        return m.sigmoid(x * (GELU_1 + GELU_3 * x * x))
    else:
        a = tl.abs(x)
        a = tl.where(a > 30.0, 30.0, a)
        y = a * a
        t = y * GELU_3_HI
        s = GELU_1_HI + t
        head = s - t
        # What rounding took from y, from t, from s and from the two constants.
        small = tl.fma(y, GELU_3_HI, -t) + (y * GELU_3_LO + tl.fma(a, a, -y) * GELU_3_HI) + GELU_1_LO
        rest = (GELU_1_HI - head) + (t - (s - head)) + small
        v = a * s
        z = m.exp_sum(-v, -(tl.fma(a, s, -v) + a * rest))
        return m.divide(tl.where(x < 0, z, 1.0), 1.0 + z)


@triton.jit
def gelu_tanh(x, p0, p1):
    return x * _gelu_sigmoid(x)


@triton.jit
def gelu_tanh_d(x, p0, p1):
    s = _gelu_sigmoid(x)
    c = _gelu_sigmoid(-x)
    slope = GELU_1 + 3.0 * GELU_3 * x * x
    return s + x * (s * c * slope)


@triton.jit
def gelu_tanh_dd(x, p0, p1):
    s = _gelu_sigmoid(x)
    c = _gelu_sigmoid(-x)
    slope = GELU_1 + 3.0 * GELU_3 * x * x
    bend = 6.0 * GELU_3 * x
    return s * c * (2.0 * slope + x * (bend + (c - s) * slope * slope))


@triton.jit
def silu(x, p0, p1):
    return x * m.sigmoid(x)


@triton.jit
def silu_d(x, p0, p1):
    return m.sigmoid(x) * (1.0 + x * m.sigmoid(-x))


@triton.jit
def silu_dd(x, p0, p1):
    s = m.sigmoid(x)
    c = m.sigmoid(-x)
    return s * c * (2.0 + x * (c - s))


@triton.jit
def _mish_parts(x):
    """t = tanh(softplus(x)) and 1 - t^2, from z = e^-|x| alone."""
    z = m.exp(-tl.abs(x))
    up = x > 0
    n = tl.where(up, 1.0 + 2.0 * z, z * (z + 2.0))
    rest = tl.where(up, 2.0 * z * z, 2.0)
    t = m.divide(n, n + rest)
    return t, m.divide(rest, n + rest) * (1.0 + t)


@triton.jit
def mish(x, p0, p1):
    t, _ = _mish_parts(x)
    return x * t


@triton.jit
def mish_d(x, p0, p1):
    t, w = _mish_parts(x)
    return t + x * (m.sigmoid(x) * w)


@triton.jit
def mish_dd(x, p0, p1):
    t, w = _mish_parts(x)
    s = m.sigmoid(x)
    return s * w * (2.0 + x * (m.sigmoid(-x) - 2.0 * t * s))


@triton.jit
def sigmoid(x, p0, p1):
    return m.sigmoid(x)


@triton.jit
def sigmoid_d(x, p0, p1):
    return m.sigmoid(x) * m.sigmoid(-x)


@triton.jit
def sigmoid_dd(x, p0, p1):
    s = m.sigmoid(x)
    c = m.sigmoid(-x)
    return s * c * (c - s)


@triton.jit
def logsigmoid(x, p0, p1):
    return -m.softplus(-x)


@triton.jit
def logsigmoid_d(x, p0, p1):
    return m.sigmoid(-x)


@triton.jit
def logsigmoid_dd(x, p0, p1):
    return -m.sigmoid(x) * m.sigmoid(-x)


@triton.jit
def hardsigmoid(x, p0, p1):
    return _clamp(x + 3.0, 0.0, 6.0) * SIXTH


@triton.jit
def hardsigmoid_d(x, p0, p1):
    return tl.where((x > -3) & (x < 3), one(x, p0, p1) * SIXTH, 0.0)


@triton.jit
def hardswish(x, p0, p1):
    return x * _clamp(x + 3.0, 0.0, 6.0) * SIXTH


@triton.jit
def hardswish_d(x, p0, p1):
    inside = (x * 2.0 + 3.0) * SIXTH  # exactly 0 at -1.5
    return tl.where(x <= -3, 0.0, tl.where(x < 3, inside, 1.0))


@triton.jit
def hardswish_dd(x, p0, p1):
    return tl.where((x > -3) & (x < 3), one(x, p0, p1) * THIRD, 0.0)


@triton.jit
def hardtanh(x, p0, p1):
    return _clamp(x, p0, p1)


@triton.jit
def hardtanh_d(x, p0, p1):
    return tl.where((x <= p0) | (x >= p1), 0.0, one(x, p0, p1))


@triton.jit
def hardshrink(x, p0, p1):
    return tl.where((x >= -p0) & (x <= p0), 0.0, x)


@triton.jit
def shrink_d(x, p0, p1):
    return tl.where((x >= -p0) & (x <= p0), 0.0, one(x, p0, p1))


@triton.jit
def softshrink(x, p0, p1):
    # x * 0 keeps NaN.
    return tl.where(x > p0, x - p0, tl.where(x < -p0, x + p0, x * 0.0))


@triton.jit
def tanhshrink(x, p0, p1):
    return m.tanh_shrink(x)


@triton.jit
def tanhshrink_d(x, p0, p1):
    t = m.tanh(x)
    return t * t


@triton.jit
def tanhshrink_dd(x, p0, p1):
    return 2.0 * m.tanh(x) * m.tanh_slope(x)


@triton.jit
def softsign(x, p0, p1):
    return m.divide(x, 1.0 + tl.abs(x))


@triton.jit
def softsign_d(x, p0, p1):
    d = 1.0 + tl.abs(x)
    # x - x: torch's formula is NaN at the infinities.
    return m.divide(one(x, p0, p1), d * d) + (x - x)


@triton.jit
def softsign_dd(x, p0, p1):
    d = 1.0 + tl.abs(x)
    sign = tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))
    return m.divide(-2.0 * sign, d * d * d) + (x - x)


@triton.jit
def softplus(x, p0, p1):
    t = x * p0
    return tl.where(t > p1, x, m.divide(m.softplus(t), p0))


@triton.jit
def softplus_d(x, p0, p1):
    t = x * p0
    return tl.where(t > p1, 1.0, m.sigmoid(t))


@triton.jit
def softplus_dd(x, p0, p1):
    t = x * p0
    return tl.where(t >= p1, 0.0, p0 * (m.sigmoid(t) * m.sigmoid(-t)))


@triton.jit
def threshold(x, p0, p1):
    return tl.where(x <= p0, p1, x)


@triton.jit
def threshold_d(x, p0, p1):
    return tl.where(x <= p0, 0.0, one(x, p0, p1))


@triton.jit
def tanh(x, p0, p1):
    return m.tanh(x)


@triton.jit
def tanh_d(x, p0, p1):
    return m.tanh_slope(x)


@triton.jit
def tanh_dd(x, p0, p1):
    return -2.0 * m.tanh(x) * m.tanh_slope(x)


@triton.jit
def sigmoid_of_output_d(y, p0, p1):
    return (1.0 - y) * y


@triton.jit
def sigmoid_of_output_dd(y, p0, p1):
    return 1.0 - (y + y)


@triton.jit
def tanh_of_output_d(y, p0, p1):
    return 1.0 - y * y


@triton.jit
def tanh_of_output_dd(y, p0, p1):
    return -2.0 * y


@triton.jit
def squared_relu(x, p0, p1):
    r = relu(x, p0, p1)
    return r * r


@triton.jit
def squared_relu_d(x, p0, p1):
    return 2.0 * relu(x, p0, p1)


@triton.jit
def squared_relu_dd(x, p0, p1):
    return tl.where(x <= 0, 0.0, 2.0 * one(x, p0, p1))


# Name, value, derivatives, and whether torch selects zero where the derivative is zero (so that an infinite or NaN
# gradient does not pass), in the order of the ids in kernels/activation.h.
ACTIVATIONS = (
    ("identity", identity, one, zero, False),
    ("relu", relu, relu_d, zero, True),
    ("relu6", relu6, relu6_d, zero, True),
    ("leaky_relu", leaky_relu, leaky_relu_d, zero, False),
    ("elu", elu, elu_d, elu_dd, False),
    ("selu", selu, selu_d, selu_dd, False),
    ("celu", celu, celu_d, celu_dd, False),
    ("gelu", gelu, gelu_d, gelu_dd, False),
    ("gelu_tanh", gelu_tanh, gelu_tanh_d, gelu_tanh_dd, False),
    ("silu", silu, silu_d, silu_dd, False),
    ("mish", mish, mish_d, mish_dd, False),
    ("sigmoid", sigmoid, sigmoid_d, sigmoid_dd, False),
    ("logsigmoid", logsigmoid, logsigmoid_d, logsigmoid_dd, False),
    ("hardsigmoid", hardsigmoid, hardsigmoid_d, zero, True),
    ("hardswish", hardswish, hardswish_d, hardswish_dd, True),
    ("hardtanh", hardtanh, hardtanh_d, zero, True),
    ("hardshrink", hardshrink, shrink_d, zero, True),
    ("softshrink", softshrink, shrink_d, zero, True),
    ("tanhshrink", tanhshrink, tanhshrink_d, tanhshrink_dd, False),
    ("softsign", softsign, softsign_d, softsign_dd, False),
    ("softplus", softplus, softplus_d, softplus_dd, False),
    ("threshold", threshold, threshold_d, zero, True),
    ("tanh", tanh, tanh_d, tanh_dd, False),
    ("squared_relu", squared_relu, squared_relu_d, squared_relu_dd, True),
)

# f' and f'' as functions of the output; those of relu and leaky_relu are the same of either.
OF_OUTPUT = {"sigmoid": (sigmoid_of_output_d, sigmoid_of_output_dd), "tanh": (tanh_of_output_d, tanh_of_output_dd)}
