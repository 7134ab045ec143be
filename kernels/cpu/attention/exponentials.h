// A row of scores becomes one of probabilities.
#pragma once

#include "shape.h"

namespace nk::NK_ISA {

// The highest of the scores that can be seen.
template <class Acc>
NK_INLINE Acc highest(const Acc* s, KeyRange seen) {
    using V = vec<Acc>;
    constexpr int W = V::lanes;
    V a(minus_infinity<Acc>()), b = a;
    int64_t j = seen.begin / W * W;
    for (; j + 2 * W <= seen.end; j += 2 * W) a = max(load(s + j), a), b = max(load(s + j + W), b);
    for (; j < seen.end; j += W) a = max(load(s + j), a);
    return reduce_max(max(a, b));
}

template <class L>
NK_INLINE void put_two(typename L::Unit* p, typename L::AccReg a, typename L::AccReg b) {
#if defined(__AVX512BF16__)
    if constexpr (L::group == 2) return _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b.v, a.v));
#endif
    if constexpr (L::group == 1) L::store(p, a), L::store(p + L::W, b);
}
template <class L>
NK_INLINE void put_one(typename L::Unit* p, typename L::AccReg a) {
#if defined(__AVX512BF16__)
    if constexpr (L::group == 2) return L::store(reinterpret_cast<bf16*>(p), a, L::mask(L::W));
#endif
    if constexpr (L::group == 1) L::store(p, a);
}

// Scores become probabilities, exponentials of unit * s - maximum, as the microkernel takes them, all `ld` of them;
// returns their sum. What is not seen is -infinity, or lies outside the whole steps around `seen`.
template <class L>
NK_INLINE typename L::Acc exponentials(typename L::Acc* s, KeyRange seen, int64_t ld, typename L::Acc units,
                                       typename L::Acc maximum) {
    using V = typename L::AccReg;
    using Acc = typename L::Acc;
    constexpr int W = L::W, G = L::group;
    const int64_t begin = seen.begin / (2 * W) * (2 * W);
    int64_t j = 0;
    typename L::Unit* const p = reinterpret_cast<typename L::Unit*>(s);
    for (; j < begin; j += 2 * W) put_two<L>(p + j / G, V(Acc(0)), V(Acc(0)));
    const V unit(units), less(-maximum);
    V a(Acc(0)), b(Acc(0));
    for (; j + 2 * W <= ld && j < seen.end; j += 2 * W) {
        const two<V> x{L::load(s + j), L::load(s + j + W)};
        const two<V> e = power(mad(x, two<V>(unit, unit), two<V>(less, less)));
        put_two<L>(p + j / G, e.lo, e.hi);
        a = a + e.lo, b = b + e.hi;
    }
    for (; j < ld && j < seen.end; j += W) {
        const V e = power(mad(L::load(s + j), unit, less));
        put_one<L>(p + j / G, e);
        a = a + e;
    }
    for (; j < ld; j += W) put_one<L>(p + j / G, V(Acc(0)));
    return reduce_add(a + b);
}

}  // namespace nk::NK_ISA
