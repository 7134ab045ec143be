// What the softmax kernels share.
//
// softmin is softmax of -x: inputs are multiplied by `sign` as they are loaded, which needs no pass of its own.
// A maximum of -infinity (nothing but -infinity so far) is replaced by 0 in exp(x - maximum), so that the exponentials
// are 0 and not NaN; a row of nothing else then ends in 0 * (1/0) = NaN, torch's answer. NaN in x makes exp(x - m),
// the sum and so the whole row NaN, so maxima need not keep it.
#pragma once

#include "../elementwise/row.h"
#include "register.h"

namespace nk::NK_ISA {

template <class S>
NK_HD S minus_infinity() {
    return static_cast<S>(-__builtin_huge_val());
}

// The maximum to subtract.
template <class V>
NK_HD V finite_or_zero(V maximum) {
    using S = typename V::scalar;
    return select(maximum == V(minus_infinity<S>()), V(S(0)), maximum);
}

// exp(x) for x <= 0 as T needs it: 2^-18 where the result is rounded to 16 bits, exact at 0, where it decides on the
// logarithm of the sum.
template <class T, class V>
NK_HD V exponential(V x) {
    if constexpr (sizeof(T) == 2) {
        const V magic = math::num<V>(math::format<float>::round_magic), log2e = math::num<V>(1.4426950408889634);
        const V y = max(math::num<V>(math::exp_low<V>), x);
        const V n = mad(y, log2e, magic) - magic;
        const V r = mad(y, log2e, -n);
        return scale(math::poly(r, 1.0, 0.693121314, 0.240220159, 0.0559213944, 0.00968216639), n);
    } else {
        return math::exp_nonpositive(x);
    }
}

// One number by the vector code, for the same result.
template <class T, class S>
NK_HD S exponential_of_one(S x) {
    S out[vec<S>::lanes];
    store(out, exponential<T>(vec<S>(x)));
    return out[0];
}
template <class S>
NK_HD S log_one(S x) {
    S out[vec<S>::lanes];
    store(out, math::log(vec<S>(x)));
    return out[0];
}

template <class S>
struct lane_numbers {
    S of[vec<S>::lanes];
    constexpr lane_numbers() : of() {
        for (int i = 0; i < vec<S>::lanes; ++i) of[i] = static_cast<S>(i);
    }
};

// The first n elements, and -infinity in the lanes beyond.
template <class T>
NK_HD compute_vec<T> load_or_minus_infinity(const T* p, compute_vec<T> sign, int n) {
    using S = scalar_for<T>;
    static constexpr lane_numbers<S> lane;
    const compute_vec<T> v = load(p, n) * sign;
    return select(load(lane.of) < compute_vec<T>(static_cast<S>(n)), v, compute_vec<T>(minus_infinity<S>()));
}

template <class S>
NK_HD vec<S> fold_max(vec<S> v) {
    return v;
}
template <class V>
NK_HD auto fold_max(two<V> v) {
    return fold_max(max(v.lo, v.hi));
}
}  // namespace nk::NK_ISA
