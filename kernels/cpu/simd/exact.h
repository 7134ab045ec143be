// exact<f16>: numbers of 16 bits that are only compared and chosen among, so that none is ever converted back.
//
// A function whose results are its input or constants (math's Op::exact, Op::exact_slope) is computed in it as in any
// other number type: comparisons look at the float, choices take the 16 bits, and what nobody looks at is not computed.
#pragma once

#include "wide.h"

namespace nk::NK_ISA {

template <class T>
struct exact;

#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)
template <>
struct exact<f16> {
    using scalar = float;
    static constexpr int lanes = 16;
    vec<float> v;
    __m256i h;
    exact() = default;
    NK_HD exact(__m256i x) : v(_mm512_cvtph_ps(x)), h(x) {}
    NK_HD exact(float x) : v(x), h(narrow_f16(v)) {}
    NK_HD exact(vec<float> x, __m256i y) : v(x), h(y) {}
};
using exact_f16 = exact<f16>;

NK_HD mask<float> operator<(exact_f16 a, exact_f16 b) { return a.v < b.v; }
NK_HD mask<float> operator<=(exact_f16 a, exact_f16 b) { return a.v <= b.v; }
NK_HD mask<float> operator>(exact_f16 a, exact_f16 b) { return a.v > b.v; }
NK_HD mask<float> operator>=(exact_f16 a, exact_f16 b) { return a.v >= b.v; }
NK_HD exact_f16 select(mask<float> m, exact_f16 a, exact_f16 b) {
    return {select(m, a.v, b.v), _mm256_mask_blend_epi16(m.m, b.h, a.h)};
}
// As those of vec: b where they are equal or one is NaN.
NK_HD exact_f16 max(exact_f16 a, exact_f16 b) { return select(a > b, a, b); }
NK_HD exact_f16 min(exact_f16 a, exact_f16 b) { return select(a < b, a, b); }
NK_HD exact_f16 abs(exact_f16 a) { return {abs(a.v), _mm256_and_si256(a.h, _mm256_set1_epi16(0x7fff))}; }

NK_HD void load_wide(const f16* p, exact_f16& v) {
    v = exact_f16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
NK_HD void load_wide(const f16* p, two<exact_f16>& v) {
    load_wide(p, v.lo);
    load_wide(p + exact_f16::lanes, v.hi);
}
template <bool>
NK_HD void put_wide(f16* p, exact_f16 v, bool past) {
    put_half(p, v.h, past);
}
template <bool Exact>
NK_HD void put_wide(f16* p, two<exact_f16> v, bool past) {
    put_wide<Exact>(p, v.lo, past);
    put_wide<Exact>(p + exact_f16::lanes, v.hi, past);
}

#endif

// What numbers of T are computed in; Exact: results need no rounding.
template <class T, bool Exact>
struct number_of {
    using type = compute_vec<T>;
};
#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)
template <>
struct number_of<f16, true> {
    using type = exact_f16;
};
#endif
template <class T, bool Exact>
using number = typename number_of<T, Exact>::type;

}  // namespace nk::NK_ISA
