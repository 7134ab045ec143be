// exp, expm1, log1p, log, tanh, erf and the logistic and normal distributions, branch-free over a number type V.
//
// Every polynomial is a minimax fit of our own (Remez exchange in 60 digits); the comment beside it gives the largest
// relative error that the polynomial alone leaves in the result, before rounding.
#pragma once

#include "scalar.h"

namespace nk::math {

// c0 + x*(c1 + x*(c2 + ...))
template <class V>
NK_HD V poly(V, double c0) {
    return V(static_cast<scalar_t<V>>(c0));
}
template <class V, class... C>
NK_HD V poly(V x, double c0, C... rest) {
    return mad(poly(x, rest...), x, V(static_cast<scalar_t<V>>(c0)));
}

// How right a result must be: to the last place, or as a number that will be rounded to f16 (2^-17) or bf16 (2^-13).
enum class Grade { exact, f16, bf16 };

// Constants in V's own scalar type.
template <class V>
NK_HD V num(double c) {
    return V(static_cast<scalar_t<V>>(c));
}

// a/b for b that is normal or infinite.
template <Grade G, class V>
NK_HD V quotient(V a, V b) {
    if constexpr (G == Grade::bf16)
        return a * rough_reciprocal(b);
    else
        return a / b;
}

// ---- exponentials ----

// 2^r for |r| <= 1/2.
template <Grade G, class V>
NK_HD V exp2_reduced(V r) {
    if constexpr (G == Grade::bf16)  // 2^-13.7
        return poly(r, 0.999928057, 0.693260968, 0.242611125, 0.0551716685);
    else if constexpr (G == Grade::f16)  // 2^-18.6
        return poly(r, 0.999999285, 0.693121791, 0.240247443, 0.0559178591, 0.00957010128);
    else if constexpr (is_f64<V>)  // 2^-58
        return poly(r, 1.0, 0.69314718055994529, 0.24022650695910133, 0.055504108664821743, 0.0096181291075927659,
                    0.0013333558146378247, 0.00015403530458858988, 1.5252733868290942e-05, 1.3215434400248204e-06,
                    1.0178046152437381e-07, 7.0739360205551674e-09, 4.457433323200388e-10);
    else  // 2^-23
        return poly(r, 1.0, 0.693147242, 0.24022232, 0.0555030741, 0.00967209041, 0.00134075212);
}

// x = n*ln2 + r with |r| <= ln2/2; ln2 in two parts of which the first times n is exact (Cody and Waite).
template <class V>
NK_HD V reduce_exp(V x, V& n) {
    const V magic = num<V>(format<scalar_t<V>>::round_magic);
    n = mad(x, num<V>(1.4426950408889634), magic) - magic;
    if constexpr (is_f64<V>) {
        const V r = mad(n, num<V>(-6.93147180369123816490e-01), x);
        return mad(n, num<V>(-1.90821492927058770002e-10), r);
    } else {
        const V r = mad(n, num<V>(-0.693359375), x);
        return mad(n, num<V>(2.12194440e-4), r);
    }
}

// (exp(r) - 1 - r)/r^2 for |r| <= ln2/2.
template <class V>
NK_HD V exp_rest(V r) {
    if constexpr (is_f64<V>)  // 2^-58
        return poly(r, 0.50000000000000133, 0.16666666666666699, 0.041666666666514501, 0.0083333333333065456,
                    0.001388888894729674, 0.00019841269918821359, 2.4801489616163793e-05, 2.7557215032955852e-06,
                    2.7631407480595436e-07, 2.5118253777235502e-08);
    else  // 2^-28
        return poly(r, 0.5, 0.166665182, 0.0416662022, 0.00836895313, 0.00139506068);
}
template <class V>
NK_HD V exp_reduced(V r) {
    const V one = num<V>(1);
    return mad(mad(exp_rest(r), r, one), r, one);
}
template <class V>
NK_HD V expm1_reduced(V r) {
    return mad(exp_rest(r) * r, r, r);
}

// Bounds outside which exp is 0 or infinite and expm1 is -1.
template <class V>
inline constexpr double exp_low = is_f64<V> ? -746.0 : -104.0;
template <class V>
inline constexpr double exp_high = is_f64<V> ? 710.0 : 89.0;
template <class V>
inline constexpr double expm1_low = is_f64<V> ? -38.0 : -18.0;

// exp(x) for x <= 88 (709 in f64); NaN passes through.
template <Grade G = Grade::exact, class V>
NK_HD V exp_nonpositive(V x) {
    const V t = max(num<V>(exp_low<V>), x);
    V n;
    if constexpr (G == Grade::exact) {
        const V r = reduce_exp(t, n);
        return scale(exp_reduced(r), n);
    } else {
        const V log2e = num<V>(1.4426950408889634), magic = num<V>(format<scalar_t<V>>::round_magic);
        n = mad(t, log2e, magic) - magic;
        return scale(exp2_reduced<G>(mad(t, log2e, -n)), n);
    }
}

template <Grade G = Grade::exact, class V>
NK_HD V exp(V x) {
    return exp_nonpositive<G>(min(num<V>(exp_high<V>), x));
}

// 2^n * (1 + p) - 1 with the power halved, because 2^n itself may overflow where the result does not.
template <Grade G = Grade::exact, class V>
NK_HD V expm1(V x) {
    const V t = min(num<V>(exp_high<V>), max(num<V>(expm1_low<V>), x));
    V n, p;
    if constexpr (G == Grade::exact) {
        p = expm1_reduced(reduce_exp(t, n));
    } else {
        const V magic = num<V>(format<scalar_t<V>>::round_magic);
        n = mad(t, num<V>(1.4426950408889634), magic) - magic;
        const V r = mad(n, num<V>(-0.69314718055994531), t);
        V rest;
        if constexpr (G == Grade::bf16)  // 2^-15.6
            rest = poly(r, 0.499991655, 0.167497963, 0.0419032015);
        else  // 2^-21
            rest = poly(r, 0.499993831, 0.166664794, 0.0418746583, 0.00837279018);
        p = mad(rest * r, r, r);
    }
    const V s = pow2(n - num<V>(1));
    return fma(p, s, s - num<V>(0.5)) * num<V>(2);
}

// ---- logarithms ----

// log(2^e * (1 + f)) for 1 + f in [sqrt(1/2), sqrt(2)).
template <class V>
NK_HD V log_reduced(V f, V e) {
    const V half_square = f * f * num<V>(0.5);
    if constexpr (is_f64<V>) {
        // atanh series in s = f/(2 + f), arranged so that the large terms stay exact (as fdlibm does); 2^-66
        const V s = f / (num<V>(2) + f), z = s * s;
        const V l = z * poly(z, 0.66666666666666663, 0.40000000000006231, 0.28571428569091079, 0.22222222646097664,
                             0.18181775714711068, 0.15387088882555794, 0.132501547962251, 0.13251040718002413);
        const V small = mad(s, half_square + l, e * num<V>(1.90821492927058770002e-10));
        return mad(e, num<V>(6.93147180369123816490e-01), f - (half_square - small));
    } else {
        // 2^-30
        const V p = poly(f, 0.333333135, -0.250000089, 0.200021178, -0.166679978, 0.142195597, -0.124055587,
                         0.118880928, -0.116758309, 0.0674698949);
        const V small = mad(p * f * f, f, e * num<V>(-2.12194440e-4));
        return mad(e, num<V>(0.693359375), f - (half_square - small));
    }
}

template <class V>
NK_HD V infinity() {
    return num<V>(__builtin_huge_val());
}

template <class V>
NK_HD V log(V x) {
    using F = format<scalar_t<V>>;
    const V lift = num<V>(is_f64<V> ? 0x1p54 : 0x1p25);
    const auto tiny = x < num<V>(F::min_normal);
    V e;
    const V m = split(select(tiny, x * lift, x), e);
    e = e - select(tiny, num<V>(is_f64<V> ? 54 : 25), num<V>(0));
    const V y = log_reduced(m - num<V>(1), e);
    const V edge = select(x == num<V>(0), -infinity<V>(), select(x < num<V>(0), x - x + num<V>(__builtin_nan("")), x));
    return select((x > num<V>(0)) & (x < infinity<V>()), y, edge);
}

// log(u) + (the part of 1 + x that rounding took from u) / u.
template <class V>
NK_HD V log1p(V x) {
    const V one = num<V>(1);
    const V u = one + x, back = u - one;
    const V lost = (one - (u - back)) + (x - back);
    V e;
    const V m = split(u, e);
    // Where e is large the lost part no longer counts, and its power need not be a normal number.
    const V f = (m - one) + lost * pow2(max(-e, num<V>(-100)));
    const V y = log_reduced(f, e);
    const V edge = select(x == -one, -infinity<V>(), select(x < -one, num<V>(__builtin_nan("")), x));
    return select((x > -one) & (x < infinity<V>()), y, edge);
}

// log1p(u) for u in [0, 1].
template <Grade G = Grade::exact, class V>
NK_HD V log1p_unit(V u) {
    if constexpr (is_f64<V>) {
        return log1p(u);
    } else if constexpr (G == Grade::bf16) {  // 2^-14.1
        return u * poly(u, 0.999943256, -0.496977776, 0.306300789, -0.157427028, 0.0413472205);
    } else if constexpr (G == Grade::f16) {  // 2^-19.6
        return u *
               poly(u, 0.999998748, -0.499869645, 0.331094474, -0.235038504, 0.149223715, -0.0664016679, 0.014140984);
    } else {
        // 2^-30; without a split into exponent and mantissa
        const V p = poly(u, -0.499999881, 0.333326906, -0.249885798, 0.198979348, -0.161293447, 0.124671407,
                         -0.083074294, 0.0419815108, -0.0136315329, 0.00207295432);
        return mad(p * u, u, u);
    }
}

// ---- logistic family ----

// e = exp(-|x|) and s = sigmoid(x), c = sigmoid(-x), both exact to rounding down to the denormals.
template <class V>
struct Logistic {
    V e, s, c;
};
template <Grade G = Grade::exact, class V>
NK_HD Logistic<V> logistic(V x) {
    const V e = exp_nonpositive<G>(neg_abs(x));
    const V large = quotient<G>(num<V>(1), num<V>(1) + e), small = e * large;
    return {e, by_sign(x, small, large), by_sign(x, large, small)};
}

// In f16 the simple form has range enough: no result below exp(-88) is more than 0.
template <Grade G = Grade::exact, class V>
NK_HD V sigmoid(V x) {
    if constexpr (G == Grade::f16) {
        return num<V>(1) / (num<V>(1) + exp<G>(-x));
    } else {
        const V e = exp_nonpositive<G>(neg_abs(x));
        return quotient<G>(by_sign(x, e, num<V>(1)), num<V>(1) + e);
    }
}

// 1 - tanh(a) = 2/(exp(2a) + 1) for a >= 0; beyond the bound 1 minus it rounds to 1.
template <Grade G = Grade::exact, class V>
NK_HD V tanh_gap(V a) {
    const V t = min(num<V>(is_f64<V> ? 20.0 : 9.1), a);
    if constexpr (G == Grade::exact) {
        V n;
        const V r = reduce_exp(t + t, n);
        return num<V>(2) / mad(exp_reduced(r), pow2(n), num<V>(1));
    } else {
        return quotient<G>(num<V>(2), exp_nonpositive<G>(t + t) + num<V>(1));
    }
}

template <Grade G = Grade::exact, class V>
NK_HD V tanh(V x) {
    const V a = abs(x), z = a * a;
    V series;                        // (1 - tanh(a)/a)/a^2 for a < 0.6
    if constexpr (G == Grade::bf16)  // 2^-13.7
        series = poly(z, 0.330911487, -0.110224448);
    else if constexpr (G == Grade::f16)  // 2^-18.7
        series = poly(z, 0.333194762, -0.130899981, 0.0414589792);
    else if constexpr (is_f64<V>)  // 2^-57
        series = poly(z, 0.33333333333333126, -0.1333333333329966, 0.053968253949294748, -0.021869488002543392,
                      0.0088632267772260666, -0.0035920373775971699, 0.001455215354560015, -0.00058718837708177758,
                      0.00023039674866656134, -7.9313871958043114e-05, 1.7178682111655357e-05);
    else  // 2^-28
        series = poly(z, 0.333332986, -0.133319259, 0.0537838973, -0.0207961276, 0.00589527143);
    return copysign(select(a < num<V>(0.6), mad(a * z, -series, a), num<V>(1) - tanh_gap<G>(a)), x);
}

// 1 - tanh(x)^2 without cancellation.
template <Grade G = Grade::exact, class V>
NK_HD V sech2(V x) {
    const V e = exp_nonpositive<G>(neg_abs(x + x));
    const V q = quotient<G>(num<V>(1), num<V>(1) + e);
    return num<V>(4) * e * q * q;
}

// ---- normal distribution ----

// density = exp(-x^2/2) and ratio with P(X < -|x|) = density * ratio, for the standard normal X.
template <class V>
struct NormalTail {
    V density, ratio;
};
// exp(-a^2/2) for 0 <= a <= 39 as a power of 2. The exponent keeps what rounding takes from log2(e)/2 and, in f64, from
// a^2, for the power magnifies it; in f32 the latter would cost more than its 4 ulp at a = 5.
template <Grade G, class V>
NK_HD V normal_density(V a) {
    const V square = a * a, magic = num<V>(format<scalar_t<V>>::round_magic);
    const V high = num<V>(is_f64<V> ? -0.72134752044448169 : -0.721347511);
    const V n = mad(square, high, magic) - magic;
    V r = fma(square, high, -n);
    if constexpr (G == Grade::exact) r = mad(square, num<V>(is_f64<V> ? -1.0177636870465517e-17 : -9.62981496e-09), r);
    if constexpr (is_f64<V>) r = mad(fma(a, a, -square), high, r);
    return scale(exp2_reduced<G>(r), n);
}

template <Grade G = Grade::exact, class V>
NK_HD NormalTail<V> normal_tail(V x) {
    const V a = min(num<V>(is_f64<V> ? 39.0 : 15.0), abs(x));
    const V density = normal_density<G>(a);
    // The ratio is smooth in q = (a - k)/(a + k), which maps [0, infinity) to [-1, 1).
    constexpr double k = is_f64<V> ? 5 : G == Grade::f16 ? 3 : 4;
    V w = quotient<G>(num<V>(1), a + num<V>(k));
    if constexpr (G == Grade::exact &&
                  !is_f64<V>)  // gives back what the sum and the quotient lost, of which 3.2 fold shows
        w = mad(w, fma(w, -a, fma(w, num<V>(-k), num<V>(1))), w);
    const V q = mad(w, num<V>(-2 * k), num<V>(1));
    V p;
    if constexpr (is_f64<V>)  // 2^-56
        p = poly(q, 0.76919304975006297, -0.66538250289005663, 0.49530561596997702, -0.3135331566713157,
                 0.16502036617036153, -0.06911863870595214, 0.020795066800242321, -0.0029933767756942214,
                 -0.00079786940147876613, 0.00054489910585771284, -5.9375711291016687e-05, -4.9763010198528583e-05,
                 1.6681144872254257e-05, 3.9814911513432284e-06, -2.7690552946855539e-06, -3.3774302296823802e-07,
                 4.3268655643869254e-07, 4.3612281920760416e-08, -6.5319929612535144e-08, -1.0210896273035897e-08,
                 7.1820032062251202e-09, 2.0139270806593371e-09);
    else if constexpr (G == Grade::bf16)  // 2^-14
        p = poly(q, 0.755281389, -0.607548237, 0.38706249, -0.189973518, 0.060021054);
    else if constexpr (G == Grade::f16)  // 2^-18
        p = poly(q, 0.729082525, -0.509349763, 0.230074987, -0.0470338613, -0.0107867708, 0.00612965319, 0.00137038389);
    else  // 2^-26
        p = poly(q, 0.755285144, -0.607896566, 0.387136906, -0.186523661, 0.0604034923, -0.00752400281, -0.00351021462,
                 0.00156840391, 0.000174659916, -0.000134194677);
    return {density, p * w};
}

// P(X < x) from the tail.
template <class V>
NK_HD V normal_cdf(V x, NormalTail<V> t) {
    const V tail = t.density * t.ratio;
    return by_sign(x, tail, num<V>(1) - tail);
}

template <class V>
NK_HD V erf(V x) {
    const V a = abs(x), z = a * a;
    V y;
    if constexpr (is_f64<V>) {
        // |x| < 1: 2^-62; else 1 - erfc(a) through the normal tail
        const V p = poly(z, 0.12837916709551259, -0.37612638903183748, 0.11283791670954858, -0.026866170645072959,
                         0.0052239776247813702, -0.00085483269787651485, 0.00012055331037551108,
                         -1.4925593518728226e-05, 1.6460972954153765e-06, -1.6350026192077269e-07,
                         1.4657883530919653e-08, -1.136567067182716e-09, 5.945255584223488e-11);
        const NormalTail<V> t = normal_tail(a * num<V>(1.4142135623730951));
        y = select(a < num<V>(1), mad(a, p, a), num<V>(1) - num<V>(2) * t.density * t.ratio);
    } else {
        // |x| < 0.92: 2^-31; else 1 - exp(-T(a)) with T = -log(erfc), constant beyond 4: 2^-29
        const V p = poly(z, 0.128379166, -0.376126319, 0.112836875, -0.0268589426, 0.00519990828, -0.000813001883,
                         8.3167688e-05);
        const V t = poly(min(num<V>(4), a), 0.000195679982, 1.12767565, 0.637182295, 0.103931554, -0.0222268943,
                         0.00304321013, -0.000195936387);
        V n;
        const V r = reduce_exp(-t, n);
        const V s = pow2(n);
        y = select(a < num<V>(0.92), mad(a, p, a), (num<V>(1) - s) - expm1_reduced(r) * s);
    }
    return copysign(y, x);
}

}  // namespace nk::math
