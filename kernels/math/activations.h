// Each activation f with its derivatives, answering as torch does at NaN, infinities, ties and edges.
//
//   f(x, p)        the function
//   d(x, p)        f'
//   dd(x, p)       f''
//   vjp(g, x, p)   g*f', where torch selects g or 0 instead of multiplying, so that 0 * infinity does not make a NaN
#pragma once

#include "../activation.h"
#include "elementary.h"

namespace nk::math {

// An activation's parameters p0, p1 in the scalar type of the computation, and how right the result must be.
template <class S, Grade G = Grade::exact>
struct Params {
    static constexpr Grade grade = G;
    S p0, p1;
};

// What a kernel for numbers of 16 bits may count on: that nothing is left to round.
struct Rounded {
    static constexpr bool exact = false;        // f(x) is x, a constant or one of the parameters named below
    static constexpr bool exact_slope = false;  // g*f' is g or 0
    static constexpr bool flat_slope = false;  // f'' is zero throughout: torch has no graph then, and infinity * 0 is 0
    static constexpr bool gives_p0 = false, gives_p1 = false;  // an exact f(x) can be that parameter, rounded
};

// f' is a formula, and the gradient is its product with g.
template <class Op>
struct Smooth : Rounded {
    template <class V, class P>
    static NK_HD V vjp(V g, V x, P p) {
        return g * Op::template d<V>(x, p);
    }
};

// The gradient is selected piece by piece, and f' is the gradient of 1.
template <class Op>
struct Piecewise : Rounded {
    static constexpr bool flat_slope = true;
    template <class V, class P>
    static NK_HD V d(V x, P p) {
        return Op::template vjp<V>(num<V>(1), x, p);
    }
    template <class V, class P>
    static NK_HD V dd(V, P) {
        return num<V>(0);
    }
};

// f' has two values, told apart by one bit: the gradient is picked by it, from x or from bits that were kept.
//   bit(x, p)          a mask
//   pick(bit, g, p)    g*f'
template <class Op>
struct TwoSlopes : Piecewise<Op> {
    template <class V, class P>
    static NK_HD V vjp(V g, V x, P p) {
        return Op::template pick<V>(Op::template bit<V>(x, p), g, p);
    }
};

#define NK_F                    \
    template <class V, class P> \
    static NK_HD V f(V x, [[maybe_unused]] P p)
#define NK_D                    \
    template <class V, class P> \
    static NK_HD V d(V x, [[maybe_unused]] P p)
#define NK_DD                                 \
    static constexpr bool flat_slope = false; \
    template <class V, class P>               \
    static NK_HD V dd(V x, [[maybe_unused]] P p)
#define NK_VJP                  \
    template <class V, class P> \
    static NK_HD V vjp(V g, [[maybe_unused]] V x, [[maybe_unused]] P p)

#define NK_BIT                  \
    template <class V, class P> \
    static NK_HD auto bit(V x, [[maybe_unused]] P p)
#define NK_PICK                          \
    template <class V, class M, class P> \
    static NK_HD V pick(M bit, V g, [[maybe_unused]] P p)

struct Identity : Piecewise<Identity> {
    NK_F { return x; }
    NK_VJP { return g; }
};

struct Relu : TwoSlopes<Relu> {
    static constexpr bool exact = true, exact_slope = true;
    NK_F { return max(num<V>(0), x); }
    NK_BIT { return x <= num<V>(0); }
    NK_PICK { return select(bit, num<V>(0), g); }
    using OfOutput = Relu;  // which has the sign of x
};

struct Relu6 : TwoSlopes<Relu6> {
    static constexpr bool exact = true, exact_slope = true;
    NK_F { return min(num<V>(6), max(num<V>(0), x)); }
    NK_BIT { return (x <= num<V>(0)) | (x >= num<V>(6)); }
    NK_PICK { return select(bit, num<V>(0), g); }
};

struct LeakyRelu : TwoSlopes<LeakyRelu> {
    NK_F { return select(x > num<V>(0), x, x * V(p.p0)); }
    NK_BIT { return x > num<V>(0); }
    NK_PICK { return select(bit, g, g * V(p.p0)); }
    using OfOutput = LeakyRelu;  // which has the sign of x where the slope is positive
};

struct Elu : Piecewise<Elu> {
    NK_F { return select(x <= num<V>(0), expm1<P::grade>(x) * V(p.p0), x); }
    NK_VJP { return select(x <= num<V>(0), g * (V(p.p0) * exp<P::grade>(x)), g); }
    NK_DD { return select(x < num<V>(0), V(p.p0) * exp<P::grade>(x), num<V>(0)); }
};

struct Selu : Piecewise<Selu> {
    static constexpr double scale = 1.0507009873554804934193349852946, alpha = 1.6732632423543772848170429916717;
    NK_F { return select(x <= num<V>(0), expm1<P::grade>(x) * num<V>(scale * alpha), x * num<V>(scale)); }
    NK_VJP { return g * select(x <= num<V>(0), exp<P::grade>(x) * num<V>(scale * alpha), num<V>(scale)); }
    NK_DD { return select(x < num<V>(0), exp<P::grade>(x) * num<V>(scale * alpha), num<V>(0)); }
};

struct Celu : Piecewise<Celu> {
    NK_F { return select(x <= num<V>(0), expm1<P::grade>(x * V(1 / p.p0)) * V(p.p0), x); }
    NK_VJP { return select(x <= num<V>(0), g * exp<P::grade>(x * V(1 / p.p0)), g); }
    NK_DD { return select(x < num<V>(0), exp<P::grade>(x * V(1 / p.p0)) * V(1 / p.p0), num<V>(0)); }
};

// x * P(X < x); the tail is computed itself, so that large negative x keep their digits.
struct Gelu : Smooth<Gelu> {
    static constexpr double inv_sqrt_2pi = 0.39894228040143267794;
    // max(x, 0) - |x| P(X < -|x|); the factor is kept finite for x = infinity.
    NK_F {
        const NormalTail<V> t = normal_tail<P::grade>(x);
        const V factor = min(x, max(num<V>(is_f64<V> ? -39.0 : -15.0), neg_abs(x)));
        return mad(factor, t.density * t.ratio, max(num<V>(-0.0), x));
    }
    NK_D {
        const NormalTail<V> t = normal_tail<P::grade>(x);
        return mad(x * num<V>(inv_sqrt_2pi), t.density, normal_cdf(x, t));
    }
    NK_DD {
        const V density = normal_tail<P::grade>(x).density * num<V>(inv_sqrt_2pi);
        return density * (num<V>(2) - x * x);
    }
};

// 0.5*x*(1 + tanh(k*(x + a*x^3))) = x * sigmoid(2*k*(x + a*x^3)), which does not cancel.
struct GeluTanh : Smooth<GeluTanh> {
    static constexpr double k2 = 1.5957691216057307117, a = 0.044715;  // 2*sqrt(2/pi)
    template <class V>
    static NK_HD V inner(V x) {
        return x * mad(x * x, num<V>(k2 * a), num<V>(k2));
    }
    NK_F { return x * sigmoid<P::grade>(inner(x)); }
    NK_D {
        const Logistic<V> l = logistic<P::grade>(inner(x));
        const V slope = mad(x * x, num<V>(3 * k2 * a), num<V>(k2));
        return mad(x * l.s * l.c, slope, l.s);
    }
    NK_DD {
        const Logistic<V> l = logistic<P::grade>(inner(x));
        const V slope = mad(x * x, num<V>(3 * k2 * a), num<V>(k2)), bend = x * num<V>(6 * k2 * a);
        const V s1 = l.s * l.c;
        return s1 * (num<V>(2) * slope + x * ((l.c - l.s) * slope * slope + bend));
    }
};

struct Silu : Smooth<Silu> {
    NK_F { return x * sigmoid<P::grade>(x); }
    NK_D {
        const Logistic<V> l = logistic<P::grade>(x);
        return l.s * mad(x, l.c, num<V>(1));
    }
    NK_DD {
        const Logistic<V> l = logistic<P::grade>(x);
        return l.s * l.c * mad(x, l.c - l.s, num<V>(2));
    }
};

// x * tanh(softplus(x)) with tanh(log(1 + e)) = n/(n + 2), n = e*(e + 2), e = exp(x).
struct Mish : Smooth<Mish> {
    template <class V>
    struct Parts {
        V e, n, q;  // q = 1/(n + 2)
    };
    template <class P, class V>
    static NK_HD Parts<V> parts(V x) {
        const V e = exp_nonpositive<P::grade>(min(num<V>(cut<V>), x)), n = e * (e + num<V>(2));
        return {e, n, quotient<P::grade>(num<V>(1), n + num<V>(2))};
    }
    // Above it tanh(softplus(x)) rounds to 1.
    template <class V>
    static constexpr double cut = is_f64<V> ? 40.0 : 20.0;
    NK_F {
        const V e = exp_nonpositive<P::grade>(min(num<V>(cut<V>), x)), n = e * (e + num<V>(2));
        return x * quotient<P::grade>(n, n + num<V>(2));
    }
    // The derivative of tanh(softplus(x)): (1 - tanh^2) * sigmoid(x)
    template <class V>
    static NK_HD V inner(V x, Parts<V> t) {
        const V w = num<V>(4) * t.e * t.q * ((num<V>(1) + t.e) * t.q);
        return select(x > num<V>(cut<V>), num<V>(0), w);
    }
    NK_D {
        const Parts<V> t = parts<P>(x);
        return mad(x, inner(x, t), t.n * t.q);
    }
    NK_DD {
        const Parts<V> t = parts<P>(x);
        const V w = inner(x, t), r = num<V>(1) / (num<V>(1) + t.e);  // r = 1 - sigmoid(x)
        const V s = t.e * r;
        return w * (num<V>(2) + x * (r - num<V>(2) * t.n * t.q * s));
    }
};

struct Sigmoid : Smooth<Sigmoid> {
    NK_F { return sigmoid<P::grade>(x); }
    NK_D {
        const V e = exp_nonpositive<P::grade>(neg_abs(x));
        const V q = quotient<P::grade>(num<V>(1), num<V>(1) + e);
        return e * q * q;
    }
    NK_DD {
        const Logistic<V> l = logistic<P::grade>(x);
        return l.s * l.c * (l.c - l.s);
    }
    struct OfOutput : Smooth<OfOutput> {
        NK_D { return (num<V>(1) - x) * x; }
        NK_DD { return num<V>(1) - (x + x); }
    };
};

struct Logsigmoid : Smooth<Logsigmoid> {
    NK_F { return min(num<V>(0), x) - log1p_unit<P::grade>(exp_nonpositive<P::grade>(neg_abs(x))); }
    NK_D { return sigmoid<P::grade>(-x); }
    NK_DD { return -Sigmoid::d<V>(x, p); }
};

struct Hardsigmoid : TwoSlopes<Hardsigmoid> {
    NK_F { return min(num<V>(6), max(num<V>(0), x + num<V>(3))) * num<V>(1.0 / 6); }
    NK_BIT { return (x > num<V>(-3)) & (x < num<V>(3)); }
    NK_PICK { return select(bit, g * num<V>(1.0 / 6), num<V>(0)); }
};

struct Hardswish : Piecewise<Hardswish> {
    NK_F { return x * min(num<V>(6), max(num<V>(0), x + num<V>(3))) * num<V>(1.0 / 6); }
    NK_VJP {
        const V middle = g * (mad(x, num<V>(2), num<V>(3)) * num<V>(1.0 / 6));  // exactly 0 at -1.5
        return select(x <= num<V>(-3), num<V>(0), select(x < num<V>(3), middle, g));
    }
    NK_DD { return select((x > num<V>(-3)) & (x < num<V>(3)), num<V>(1.0 / 3), num<V>(0)); }
};

struct Hardtanh : TwoSlopes<Hardtanh> {
    static constexpr bool exact = true, exact_slope = true, gives_p0 = true, gives_p1 = true;
    NK_F { return min(V(p.p1), max(V(p.p0), x)); }
    NK_BIT { return (x <= V(p.p0)) | (x >= V(p.p1)); }
    NK_PICK { return select(bit, num<V>(0), g); }
};

struct Hardshrink : TwoSlopes<Hardshrink> {
    static constexpr bool exact = true, exact_slope = true;
    NK_F { return select(abs(x) <= V(p.p0), num<V>(0), x); }
    NK_BIT { return abs(x) <= V(p.p0); }
    NK_PICK { return select(bit, num<V>(0), g); }
};

struct Softshrink : TwoSlopes<Softshrink> {
    static constexpr bool exact_slope = true;
    NK_F { return select(x > V(p.p0), x - V(p.p0), select(x < V(-p.p0), x + V(p.p0), x * num<V>(0))); }
    NK_BIT { return Hardshrink::bit<V>(x, p); }
    NK_PICK { return select(bit, num<V>(0), g); }
};

// x - tanh(x), by its own series where the difference would cancel.
struct Tanhshrink : Smooth<Tanhshrink> {
    NK_F {
        const V z = x * x;
        V s;
        if constexpr (is_f64<V>)  // 2^-59
            s = poly(z, 0.33333333333333331, -0.13333333333333311, 0.053968253968231558, -0.021869488535298031,
                     0.0088632355125894437, -0.0035921278236704956, 0.0014558326533984118, -0.00059001757679875229,
                     0.00023908846508934669, -9.6791092704860704e-05, 3.8991871173576284e-05, -1.5416452019486524e-05,
                     5.7776544416283333e-06, -1.9218143651936037e-06, 5.1233036712561773e-07, -9.3656200096479328e-08,
                     8.5400007040580547e-09);
        else  // 2^-27
            s = poly(z, 0.333333343, -0.133333102, 0.0539634228, -0.0218295846, 0.00869795121, -0.00320695364,
                     0.000923609186, -0.000142823934);
        const V a = abs(x);
        return select(z < num<V>(1), x * (z * s), copysign((a - num<V>(1)) + tanh_gap<P::grade>(a), x));
    }
    NK_D {
        const V t = tanh<P::grade>(x);
        return t * t;
    }
    NK_DD { return num<V>(2) * tanh<P::grade>(x) * sech2<P::grade>(x); }
};

struct Softsign : Smooth<Softsign> {
    NK_F { return x / (num<V>(1) + abs(x)); }
    // 0*x: torch's formula has infinity/infinity in it at an infinite x.
    NK_D {
        const V q = num<V>(1) / (num<V>(1) + abs(x));
        return mad(q, q, x * num<V>(0));
    }
    NK_DD {
        const V q = num<V>(1) / (num<V>(1) + abs(x));
        const V y = mad(q * q, q, x * num<V>(0));
        return select(x == num<V>(0), num<V>(0), copysign(num<V>(2), -x) * y);
    }
};

struct Softplus : Smooth<Softplus> {
    NK_F {
        const V z = x * V(p.p0);
        const V y = max(num<V>(0), z) + log1p_unit<P::grade>(exp_nonpositive<P::grade>(neg_abs(z)));
        return select(z > V(p.p1), x, y / V(p.p0));
    }
    NK_D {
        const V z = x * V(p.p0);
        return select(z > V(p.p1), num<V>(1), sigmoid<P::grade>(z));
    }
    NK_DD {
        const V z = x * V(p.p0);
        return select(z > V(p.p1), num<V>(0), V(p.p0) * Sigmoid::d<V>(z, p));
    }
};

struct Threshold : TwoSlopes<Threshold> {
    static constexpr bool exact = true, exact_slope = true, gives_p1 = true;
    NK_F { return select(x <= V(p.p0), V(p.p1), x); }
    NK_BIT { return x <= V(p.p0); }
    NK_PICK { return select(bit, num<V>(0), g); }
};

struct Tanh : Smooth<Tanh> {
    NK_F { return tanh<P::grade>(x); }
    NK_D { return sech2<P::grade>(x); }
    NK_DD { return num<V>(-2) * tanh<P::grade>(x) * sech2<P::grade>(x); }
    struct OfOutput : Smooth<OfOutput> {
        NK_D { return mad(x, -x, num<V>(1)); }
        NK_DD { return num<V>(-2) * x; }
    };
};

struct SquaredRelu : Piecewise<SquaredRelu> {
    NK_F {
        const V r = max(num<V>(0), x);
        return r * r;
    }
    NK_VJP { return select(x <= num<V>(0), num<V>(0), g * (x + x)); }
    NK_DD { return select(x <= num<V>(0), num<V>(0), num<V>(2)); }
};

template <class Op>
inline constexpr bool two_slopes = __is_base_of(TwoSlopes<Op>, Op);

// Whether Op::OfOutput has f' and f'' as functions of y = f(x).
template <class Op>
inline constexpr bool told_by_output = false;
#define NK_TOLD(name, Op, cost, told, parameters) \
    template <>                                   \
    inline constexpr bool told_by_output<Op> = ToldBy::told == ToldBy::output;
NK_ACTIVATIONS(NK_TOLD)
#undef NK_TOLD

#undef NK_F
#undef NK_D
#undef NK_DD
#undef NK_VJP
#undef NK_BIT
#undef NK_PICK

// f(Op{}) for the activation of that id.
template <class F>
NK_HD auto visit_activation(Activation a, F&& f) {
    switch (a) {
#define NK_CASE(name, Op, cost, told, parameters) \
    case Activation::name:                        \
        return f(Op{});
        NK_ACTIVATIONS(NK_CASE)
#undef NK_CASE
    }
    __builtin_unreachable();  // there is no other id
}

// The same for the activations of gated units.
template <class F>
NK_HD void visit_gate(Activation a, F&& f) {
    switch (a) {
#define NK_CASE(name, activation, Op, first) \
    case Activation::activation:             \
        return f(Op{});
        NK_GATED_UNITS(NK_CASE)
#undef NK_CASE
        default:
            return;
    }
}

template <class Op, class F>
NK_HD void call_if_told_by_output(F&& f) {
    if constexpr (told_by_output<Op>) f(typename Op::OfOutput{});
}

// f(Op::OfOutput{}) for those that are told by their output; nothing for the others.
template <class F>
NK_HD void visit_told_by_output(Activation a, F&& f) {
    switch (a) {
#define NK_CASE(name, Op, cost, told, parameters) \
    case Activation::name:                        \
        return call_if_told_by_output<Op>(f);
        NK_ACTIVATIONS(NK_CASE)
#undef NK_CASE
    }
}

}  // namespace nk::math
