// Sixteen floats or eight doubles.
#pragma once

#include "intrinsics.h"

namespace nk::NK_ISA {

template <>
struct vec<float> {
    using scalar = float;
    static constexpr int lanes = 16;
    __m512 v;
    vec() = default;
    NK_HD vec(__m512 x) : v(x) {}
    NK_HD vec(float x) : v(_mm512_set1_ps(x)) {}
};
template <>
struct vec<double> {
    using scalar = double;
    static constexpr int lanes = 8;
    __m512d v;
    vec() = default;
    NK_HD vec(__m512d x) : v(x) {}
    NK_HD vec(double x) : v(_mm512_set1_pd(x)) {}
};
template <>
struct mask<float> {
    __mmask16 m;
};
template <>
struct mask<double> {
    __mmask8 m;
};

template <class S>
NK_HD mask<S> operator&(mask<S> a, mask<S> b) {
    return {static_cast<decltype(a.m)>(a.m & b.m)};
}
template <class S>
NK_HD mask<S> operator|(mask<S> a, mask<S> b) {
    return {static_cast<decltype(a.m)>(a.m | b.m)};
}
template <class S>
NK_HD mask<S> operator!(mask<S> a) {
    return {static_cast<decltype(a.m)>(~a.m)};
}

NK_HD mask<float> operator<(vec<float> a, vec<float> b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
NK_HD mask<float> operator<=(vec<float> a, vec<float> b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
NK_HD mask<float> operator>(vec<float> a, vec<float> b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
NK_HD mask<float> operator>=(vec<float> a, vec<float> b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
NK_HD mask<float> operator==(vec<float> a, vec<float> b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
NK_HD mask<double> operator<(vec<double> a, vec<double> b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ)}; }
NK_HD mask<double> operator<=(vec<double> a, vec<double> b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LE_OQ)}; }
NK_HD mask<double> operator>(vec<double> a, vec<double> b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_GT_OQ)}; }
NK_HD mask<double> operator>=(vec<double> a, vec<double> b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_GE_OQ)}; }
NK_HD mask<double> operator==(vec<double> a, vec<double> b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ)}; }

NK_HD uint64_t pack(mask<float> m) { return m.m; }
NK_HD uint64_t pack(mask<double> m) { return m.m; }
NK_HD void unpack(uint64_t bits, mask<float>& m) { m.m = static_cast<__mmask16>(bits); }
NK_HD void unpack(uint64_t bits, mask<double>& m) { m.m = static_cast<__mmask8>(bits); }
NK_HD vec<float> select(mask<float> m, vec<float> a, vec<float> b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }
NK_HD vec<double> select(mask<double> m, vec<double> a, vec<double> b) { return _mm512_mask_blend_pd(m.m, b.v, a.v); }
// By the sign bit spread over the number: comparisons with a mask take a turn of the units that multiply.
NK_HD vec<float> by_sign(vec<float> x, vec<float> a, vec<float> b) {
    const __m512i sign = _mm512_srai_epi32(_mm512_castps_si512(x.v), 31);
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(sign, _mm512_castps_si512(a.v), _mm512_castps_si512(b.v), 0xca));
}
NK_HD vec<double> by_sign(vec<double> x, vec<double> a, vec<double> b) {
    const __m512i sign = _mm512_srai_epi64(_mm512_castpd_si512(x.v), 63);
    return _mm512_castsi512_pd(
        _mm512_ternarylogic_epi64(sign, _mm512_castpd_si512(a.v), _mm512_castpd_si512(b.v), 0xca));
}
NK_HD vec<float> rough_reciprocal(vec<float> x) { return _mm512_rcp14_ps(x.v); }
NK_HD vec<float> max(vec<float> a, vec<float> b) { return _mm512_max_ps(a.v, b.v); }
NK_HD vec<double> max(vec<double> a, vec<double> b) { return _mm512_max_pd(a.v, b.v); }
NK_HD vec<float> min(vec<float> a, vec<float> b) { return _mm512_min_ps(a.v, b.v); }
NK_HD vec<double> min(vec<double> a, vec<double> b) { return _mm512_min_pd(a.v, b.v); }
NK_HD vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
NK_HD vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a.v, b.v, c.v); }
NK_HD vec<float> abs(vec<float> a) { return _mm512_abs_ps(a.v); }
NK_HD vec<double> abs(vec<double> a) { return _mm512_abs_pd(a.v); }

NK_HD vec<float> neg_abs(vec<float> a) {
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(INT32_MIN)));
}
NK_HD vec<double> neg_abs(vec<double> a) {
    return _mm512_castsi512_pd(_mm512_or_si512(_mm512_castpd_si512(a.v), _mm512_set1_epi64(INT64_MIN)));
}

// The sign bit of one, all other bits of the other: a three-input table of bits, (mask & sign) | (~mask & magnitude).
NK_HD vec<float> copysign(vec<float> magnitude, vec<float> sign) {
    const __m512i top = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(top, _mm512_castps_si512(sign.v), _mm512_castps_si512(magnitude.v), 0xca));
}
NK_HD vec<double> copysign(vec<double> magnitude, vec<double> sign) {
    const __m512i top = _mm512_set1_epi64(INT64_MIN);
    return _mm512_castsi512_pd(
        _mm512_ternarylogic_epi64(top, _mm512_castpd_si512(sign.v), _mm512_castpd_si512(magnitude.v), 0xca));
}

NK_HD vec<float> scale(vec<float> p, vec<float> n) { return _mm512_scalef_ps(p.v, n.v); }
NK_HD vec<double> scale(vec<double> p, vec<double> n) { return _mm512_scalef_pd(p.v, n.v); }
NK_HD vec<float> pow2(vec<float> n) { return _mm512_scalef_ps(_mm512_set1_ps(1), n.v); }
NK_HD vec<double> pow2(vec<double> n) { return _mm512_scalef_pd(_mm512_set1_pd(1), n.v); }

NK_HD vec<float> split(vec<float> x, vec<float>& e) {
    const __m512i b = _mm512_castps_si512(x.v);
    const __m512i k = _mm512_srai_epi32(_mm512_sub_epi32(b, _mm512_set1_epi32(math::format<float>::sqrt_half)), 23);
    e = _mm512_cvtepi32_ps(k);
    return _mm512_castsi512_ps(_mm512_sub_epi32(b, _mm512_slli_epi32(k, 23)));
}
NK_HD vec<double> split(vec<double> x, vec<double>& e) {
    const __m512i b = _mm512_castpd_si512(x.v);
    const __m512i k = _mm512_srai_epi64(_mm512_sub_epi64(b, _mm512_set1_epi64(math::format<double>::sqrt_half)), 52);
    e = _mm512_cvtepi64_pd(k);
    return _mm512_castsi512_pd(_mm512_sub_epi64(b, _mm512_slli_epi64(k, 52)));
}

NK_HD float reduce_add(vec<float> a) { return _mm512_reduce_add_ps(a.v); }
NK_HD double reduce_add(vec<double> a) { return _mm512_reduce_add_pd(a.v); }
NK_HD float reduce_max(vec<float> a) {
    const bool nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    return nan ? __builtin_nanf("") : _mm512_reduce_max_ps(a.v);
}
NK_HD double reduce_max(vec<double> a) {
    const bool nan = _mm512_cmp_pd_mask(a.v, a.v, _CMP_UNORD_Q);
    return nan ? __builtin_nan("") : _mm512_reduce_max_pd(a.v);
}

NK_HD __mmask16 first16(int n) { return static_cast<__mmask16>((1u << n) - 1u); }  // n in [0, 16]
NK_HD __mmask8 first8(int n) { return static_cast<__mmask8>((1u << n) - 1u); }

// The first n lanes, for loads and stores that are many.
template <>
struct first<float> {
    __mmask16 m;
    first() = default;
    explicit NK_HD first(int64_t n) : m(n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1u)) {}
};
template <>
struct first<double> {
    __mmask8 m;
    first() = default;
    explicit NK_HD first(int64_t n) : m(n >= 8 ? 0xff : n <= 0 ? 0 : static_cast<__mmask8>((1u << n) - 1u)) {}
};
inline constexpr bool kFirstIsFree = true;  // an access to the first lanes costs what one to all does

NK_HD vec<float> widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
NK_HD vec<float> load(const float* p) { return _mm512_loadu_ps(p); }
NK_HD vec<double> load(const double* p) { return _mm512_loadu_pd(p); }
NK_HD vec<float> load(const f16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
NK_HD vec<float> load(const bf16* p) { return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
NK_HD vec<float> load(const float* p, int n) { return _mm512_maskz_loadu_ps(first16(n), p); }
NK_HD vec<double> load(const double* p, int n) { return _mm512_maskz_loadu_pd(first8(n), p); }
NK_HD vec<float> load(const f16* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first16(n), p)); }
NK_HD vec<float> load(const bf16* p, int n) { return widen_bf16(_mm256_maskz_loadu_epi16(first16(n), p)); }

NK_HD vec<float> load(const float* p, first<float> f) { return _mm512_maskz_loadu_ps(f.m, p); }
NK_HD vec<double> load(const double* p, first<double> f) { return _mm512_maskz_loadu_pd(f.m, p); }
NK_HD vec<float> load(const f16* p, first<float> f) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(f.m, p)); }
NK_HD vec<float> load(const bf16* p, first<float> f) { return widen_bf16(_mm256_maskz_loadu_epi16(f.m, p)); }

// Rounds the upper half to nearest even by adding just under half of its last place, and one more if that is odd; a NaN
// is made quiet instead. The instruction vcvtneps2bf16 would be shorter, but it flushes denormals.
NK_HD __m512i round_bf16_number(vec<float> a) {
    const __m512i b = _mm512_castps_si512(a.v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_add_epi32(b, _mm512_set1_epi32(0x7fff)), odd);
}
NK_HD __m512i round_bf16(vec<float> a) {
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(round_bf16_number(a), nan, _mm512_castps_si512(a.v), _mm512_set1_epi32(0x400000));
}
NK_HD __m256i narrow_bf16(vec<float> a) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(round_bf16(a), 16)); }
NK_HD void load_pair(const bf16* p, vec<float>& a, vec<float>& b) {
    const __m512i both = _mm512_loadu_si512(p);
    a = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    b = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}
// The upper halves of a and b, in turns.
NK_HD void put_upper(bf16* p, __m512i a, __m512i b, bool past) {
    const __m512i low = _mm512_srli_epi32(a, 16), upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    const __m512i both = _mm512_ternarylogic_epi32(upper, b, low, 0xca);
    past ? _mm512_stream_si512(reinterpret_cast<__m512i*>(p), both) : _mm512_storeu_si512(p, both);
}
NK_HD void put_pair(bf16* p, vec<float> a, vec<float> b, bool past) {
    put_upper(p, round_bf16_number(a), round_bf16_number(b), past);
}
NK_HD void put_pair_exact(bf16* p, vec<float> a, vec<float> b, bool past) {
    put_upper(p, _mm512_castps_si512(a.v), _mm512_castps_si512(b.v), past);
}
NK_HD __m256i narrow_f16(vec<float> a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
NK_HD void store(float* p, vec<float> a) { _mm512_storeu_ps(p, a.v); }
NK_HD void store(double* p, vec<double> a) { _mm512_storeu_pd(p, a.v); }
NK_HD void store(f16* p, vec<float> a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_f16(a)); }
NK_HD void store(bf16* p, vec<float> a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(a)); }
NK_HD void store(float* p, vec<float> a, int n) { _mm512_mask_storeu_ps(p, first16(n), a.v); }
NK_HD void store(double* p, vec<double> a, int n) { _mm512_mask_storeu_pd(p, first8(n), a.v); }
NK_HD void store(f16* p, vec<float> a, int n) { _mm256_mask_storeu_epi16(p, first16(n), narrow_f16(a)); }
NK_HD void store(bf16* p, vec<float> a, int n) { _mm256_mask_storeu_epi16(p, first16(n), narrow_bf16(a)); }
NK_HD void store(float* p, vec<float> a, first<float> f) { _mm512_mask_storeu_ps(p, f.m, a.v); }
NK_HD void store(double* p, vec<double> a, first<double> f) { _mm512_mask_storeu_pd(p, f.m, a.v); }
NK_HD void store(f16* p, vec<float> a, first<float> f) { _mm256_mask_storeu_epi16(p, f.m, narrow_f16(a)); }
NK_HD void store(bf16* p, vec<float> a, first<float> f) { _mm256_mask_storeu_epi16(p, f.m, narrow_bf16(a)); }
// A branch at each store costs next to nothing where it always goes the same way, and loops are compiled once.
NK_HD void put(float* p, vec<float> a, bool past) { past ? _mm512_stream_ps(p, a.v) : _mm512_storeu_ps(p, a.v); }
NK_HD void put(double* p, vec<double> a, bool past) { past ? _mm512_stream_pd(p, a.v) : _mm512_storeu_pd(p, a.v); }
NK_HD void put_half(void* p, __m256i h, bool past) {
    __m256i* to = static_cast<__m256i*>(p);
    past ? _mm256_stream_si256(to, h) : _mm256_storeu_si256(to, h);
}
NK_HD void put(f16* p, vec<float> a, bool past) { put_half(p, narrow_f16(a), past); }
NK_HD void put(bf16* p, vec<float> a, bool past) { put_half(p, narrow_bf16(a), past); }

}  // namespace nk::NK_ISA
