// Eight floats or four doubles.
#pragma once

#include "intrinsics.h"

namespace nk::NK_ISA {

template <>
struct vec<float> {
    using scalar = float;
    static constexpr int lanes = 8;
    __m256 v;
    vec() = default;
    NK_HD vec(__m256 x) : v(x) {}
    NK_HD vec(float x) : v(_mm256_set1_ps(x)) {}
};
template <>
struct vec<double> {
    using scalar = double;
    static constexpr int lanes = 4;
    __m256d v;
    vec() = default;
    NK_HD vec(__m256d x) : v(x) {}
    NK_HD vec(double x) : v(_mm256_set1_pd(x)) {}
};
template <>
struct mask<float> {
    __m256 m;
};
template <>
struct mask<double> {
    __m256d m;
};

NK_HD mask<float> operator&(mask<float> a, mask<float> b) { return {_mm256_and_ps(a.m, b.m)}; }
NK_HD mask<double> operator&(mask<double> a, mask<double> b) { return {_mm256_and_pd(a.m, b.m)}; }
NK_HD mask<float> operator|(mask<float> a, mask<float> b) { return {_mm256_or_ps(a.m, b.m)}; }
NK_HD mask<double> operator|(mask<double> a, mask<double> b) { return {_mm256_or_pd(a.m, b.m)}; }
NK_HD mask<float> operator!(mask<float> a) { return {_mm256_xor_ps(a.m, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
NK_HD mask<double> operator!(mask<double> a) {
    return {_mm256_xor_pd(a.m, _mm256_castsi256_pd(_mm256_set1_epi32(-1)))};
}

NK_HD mask<float> operator<(vec<float> a, vec<float> b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
NK_HD mask<float> operator<=(vec<float> a, vec<float> b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
NK_HD mask<float> operator>(vec<float> a, vec<float> b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
NK_HD mask<float> operator>=(vec<float> a, vec<float> b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
NK_HD mask<float> operator==(vec<float> a, vec<float> b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
NK_HD mask<double> operator<(vec<double> a, vec<double> b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ)}; }
NK_HD mask<double> operator<=(vec<double> a, vec<double> b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_LE_OQ)}; }
NK_HD mask<double> operator>(vec<double> a, vec<double> b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_GT_OQ)}; }
NK_HD mask<double> operator>=(vec<double> a, vec<double> b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_GE_OQ)}; }
NK_HD mask<double> operator==(vec<double> a, vec<double> b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)}; }

NK_HD uint64_t pack(mask<float> m) { return static_cast<unsigned>(_mm256_movemask_ps(m.m)); }
NK_HD uint64_t pack(mask<double> m) { return static_cast<unsigned>(_mm256_movemask_pd(m.m)); }
NK_HD void unpack(uint64_t bits, mask<float>& m) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i own = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane);
    m.m = _mm256_castsi256_ps(_mm256_cmpeq_epi32(own, lane));
}
NK_HD void unpack(uint64_t bits, mask<double>& m) {
    const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i own = _mm256_and_si256(_mm256_set1_epi64x(static_cast<int64_t>(bits)), lane);
    m.m = _mm256_castsi256_pd(_mm256_cmpeq_epi64(own, lane));
}
NK_HD vec<float> select(mask<float> m, vec<float> a, vec<float> b) { return _mm256_blendv_ps(b.v, a.v, m.m); }
NK_HD vec<double> select(mask<double> m, vec<double> a, vec<double> b) { return _mm256_blendv_pd(b.v, a.v, m.m); }
NK_HD vec<float> by_sign(vec<float> x, vec<float> a, vec<float> b) { return _mm256_blendv_ps(b.v, a.v, x.v); }
NK_HD vec<double> by_sign(vec<double> x, vec<double> a, vec<double> b) { return _mm256_blendv_pd(b.v, a.v, x.v); }
NK_HD vec<float> rough_reciprocal(vec<float> x) { return 1 / x.v; }  // vrcpps has 11 bits
NK_HD vec<float> max(vec<float> a, vec<float> b) { return _mm256_max_ps(a.v, b.v); }
NK_HD vec<double> max(vec<double> a, vec<double> b) { return _mm256_max_pd(a.v, b.v); }
NK_HD vec<float> min(vec<float> a, vec<float> b) { return _mm256_min_ps(a.v, b.v); }
NK_HD vec<double> min(vec<double> a, vec<double> b) { return _mm256_min_pd(a.v, b.v); }
NK_HD vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
NK_HD vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm256_fmadd_pd(a.v, b.v, c.v); }
NK_HD vec<float> abs(vec<float> a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v); }
NK_HD vec<double> abs(vec<double> a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a.v); }
NK_HD vec<float> neg_abs(vec<float> a) { return _mm256_or_ps(_mm256_set1_ps(-0.0f), a.v); }
NK_HD vec<double> neg_abs(vec<double> a) { return _mm256_or_pd(_mm256_set1_pd(-0.0), a.v); }
NK_HD vec<float> copysign(vec<float> magnitude, vec<float> sign) {
    const __m256 top = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_and_ps(top, sign.v), _mm256_andnot_ps(top, magnitude.v));
}
NK_HD vec<double> copysign(vec<double> magnitude, vec<double> sign) {
    const __m256d top = _mm256_set1_pd(-0.0);
    return _mm256_or_pd(_mm256_and_pd(top, sign.v), _mm256_andnot_pd(top, magnitude.v));
}

// n + 1.5*2^mantissa has n in its low bits; the bias is added after they are moved into the exponent.
NK_HD vec<float> pow2(vec<float> n) {
    const __m256i b = _mm256_castps_si256(_mm256_add_ps(n.v, _mm256_set1_ps(0x1.8p23f)));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(b, 23), _mm256_set1_epi32(127 << 23)));
}
NK_HD vec<double> pow2(vec<double> n) {
    const __m256i b = _mm256_castpd_si256(_mm256_add_pd(n.v, _mm256_set1_pd(0x1.8p52)));
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_slli_epi64(b, 52), _mm256_set1_epi64x(int64_t{1023} << 52)));
}
// In two steps, for a power beyond the exponent range and one rounding into the denormals.
template <class S>
NK_HD vec<S> scale(vec<S> p, vec<S> n) {
    const vec<S> magic = static_cast<S>(math::format<S>::round_magic);
    const vec<S> half = fma(n, vec<S>(S(0.5)), magic).v - magic.v;
    return p.v * pow2(half).v * pow2(vec<S>(n.v - half.v)).v;
}

NK_HD vec<float> split(vec<float> x, vec<float>& e) {
    const __m256i b = _mm256_castps_si256(x.v);
    const __m256i k = _mm256_srai_epi32(_mm256_sub_epi32(b, _mm256_set1_epi32(math::format<float>::sqrt_half)), 23);
    e = _mm256_cvtepi32_ps(k);
    return _mm256_castsi256_ps(_mm256_sub_epi32(b, _mm256_slli_epi32(k, 23)));
}
// No 64-bit arithmetic shift and no conversion: the exponent is kept biased and made a number by the bits of 2^52.
NK_HD vec<double> split(vec<double> x, vec<double>& e) {
    const __m256i b = _mm256_castpd_si256(x.v), bias = _mm256_set1_epi64x(int64_t{1023} << 52);
    const __m256i root = _mm256_set1_epi64x(math::format<double>::sqrt_half);
    const __m256i k = _mm256_srli_epi64(_mm256_add_epi64(_mm256_sub_epi64(b, root), bias), 52);
    const __m256d lifted = _mm256_castsi256_pd(_mm256_or_si256(k, _mm256_castpd_si256(_mm256_set1_pd(0x1p52))));
    e = _mm256_sub_pd(lifted, _mm256_set1_pd(0x1p52 + 1023));
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_sub_epi64(b, _mm256_slli_epi64(k, 52)), bias));
}

NK_HD float reduce_add(vec<float> a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
NK_HD double reduce_add(vec<double> a) {
    const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
NK_HD float reduce_max(vec<float> a) {
    if (_mm256_movemask_ps(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))) return __builtin_nanf("");
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
NK_HD double reduce_max(vec<double> a) {
    if (_mm256_movemask_pd(_mm256_cmp_pd(a.v, a.v, _CMP_UNORD_Q))) return __builtin_nan("");
    const __m128d s = _mm_max_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
    return _mm_cvtsd_f64(_mm_max_sd(s, _mm_unpackhi_pd(s, s)));
}

NK_HD __m256i first8(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
NK_HD __m256i first4(int n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
// The first n lanes, for loads and stores that are many.
template <>
struct first<float> {
    __m256i bits;
    int n;
    first() = default;
    explicit NK_HD first(int64_t count) : n(count >= 8 ? 8 : count <= 0 ? 0 : static_cast<int>(count)) {
        bits = first8(n);
    }
};
template <>
struct first<double> {
    __m256i bits;
    int n;
    first() = default;
    explicit NK_HD first(int64_t count) : n(count >= 4 ? 4 : count <= 0 ? 0 : static_cast<int>(count)) {
        bits = first4(n);
    }
};
inline constexpr bool kFirstIsFree = false;

// There is no masked access to 16-bit elements: a tail goes through a block on the stack.
template <class T>
NK_HD __m128i load_tail(const T* p, int n) {
    alignas(16) uint16_t block[8] = {};
    memcpy(block, p, 2 * static_cast<unsigned>(n));
    return _mm_load_si128(reinterpret_cast<const __m128i*>(block));
}
template <class T>
NK_HD void store_tail(T* p, __m128i h, int n) {
    alignas(16) uint16_t block[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(block), h);
    memcpy(p, block, 2 * static_cast<unsigned>(n));
}

NK_HD vec<float> widen_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
NK_HD vec<float> load(const float* p) { return _mm256_loadu_ps(p); }
NK_HD vec<double> load(const double* p) { return _mm256_loadu_pd(p); }
NK_HD vec<float> load(const f16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
NK_HD vec<float> load(const bf16* p) { return widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
NK_HD vec<float> load(const float* p, first<float> f) { return _mm256_maskload_ps(p, f.bits); }
NK_HD vec<double> load(const double* p, first<double> f) { return _mm256_maskload_pd(p, f.bits); }
NK_HD vec<float> load(const f16* p, first<float> f) {
    return f.n == 8 ? load(p) : vec<float>(_mm256_cvtph_ps(load_tail(p, f.n)));
}
NK_HD vec<float> load(const bf16* p, first<float> f) { return f.n == 8 ? load(p) : widen_bf16(load_tail(p, f.n)); }
NK_HD vec<float> load(const float* p, int n) { return _mm256_maskload_ps(p, first8(n)); }
NK_HD vec<double> load(const double* p, int n) { return _mm256_maskload_pd(p, first4(n)); }
NK_HD vec<float> load(const f16* p, int n) { return _mm256_cvtph_ps(load_tail(p, n)); }
NK_HD vec<float> load(const bf16* p, int n) { return widen_bf16(load_tail(p, n)); }

// As in vec_avx512.h.
NK_HD __m256i round_bf16_number(vec<float> a) {
    const __m256i b = _mm256_castps_si256(a.v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(b, _mm256_set1_epi32(0x7fff)), odd);
}
NK_HD __m256i round_bf16(vec<float> a) {
    const __m256i b = _mm256_castps_si256(a.v), sum = round_bf16_number(a);
    const __m256i quiet = _mm256_or_si256(b, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(sum, quiet, nan);
}
NK_HD __m128i narrow_bf16(vec<float> a) {
    const __m256i kept = _mm256_srli_epi32(round_bf16(a), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
}
NK_HD void load_pair(const bf16* p, vec<float>& a, vec<float>& b) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    a = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
    b = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}
NK_HD void put_pair(bf16* p, vec<float> a, vec<float> b, bool past) {
    const __m256i low = _mm256_srli_epi32(round_bf16_number(a), 16);
    const __m256i both = _mm256_blend_epi16(low, round_bf16_number(b), 0xaa);
    __m256i* to = reinterpret_cast<__m256i*>(p);
    past ? _mm256_stream_si256(to, both) : _mm256_storeu_si256(to, both);
}
NK_HD __m128i narrow_f16(vec<float> a) { return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
NK_HD void store(float* p, vec<float> a) { _mm256_storeu_ps(p, a.v); }
NK_HD void store(double* p, vec<double> a) { _mm256_storeu_pd(p, a.v); }
NK_HD void store(f16* p, vec<float> a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_f16(a)); }
NK_HD void store(bf16* p, vec<float> a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_bf16(a)); }
NK_HD void store(float* p, vec<float> a, first<float> f) {
    f.n == 8 ? store(p, a) : _mm256_maskstore_ps(p, f.bits, a.v);
}
NK_HD void store(double* p, vec<double> a, first<double> f) {
    f.n == 4 ? store(p, a) : _mm256_maskstore_pd(p, f.bits, a.v);
}
NK_HD void store(f16* p, vec<float> a, first<float> f) { f.n == 8 ? store(p, a) : store_tail(p, narrow_f16(a), f.n); }
NK_HD void store(bf16* p, vec<float> a, first<float> f) { f.n == 8 ? store(p, a) : store_tail(p, narrow_bf16(a), f.n); }
NK_HD void store(float* p, vec<float> a, int n) { _mm256_maskstore_ps(p, first8(n), a.v); }
NK_HD void store(double* p, vec<double> a, int n) { _mm256_maskstore_pd(p, first4(n), a.v); }
NK_HD void store(f16* p, vec<float> a, int n) { store_tail(p, narrow_f16(a), n); }
NK_HD void store(bf16* p, vec<float> a, int n) { store_tail(p, narrow_bf16(a), n); }
// A branch at each store costs next to nothing where it always goes the same way, and loops are compiled once.
NK_HD void put(float* p, vec<float> a, bool past) { past ? _mm256_stream_ps(p, a.v) : _mm256_storeu_ps(p, a.v); }
NK_HD void put(double* p, vec<double> a, bool past) { past ? _mm256_stream_pd(p, a.v) : _mm256_storeu_pd(p, a.v); }
NK_HD void put_half(void* p, __m128i h, bool past) {
    __m128i* to = static_cast<__m128i*>(p);
    past ? _mm_stream_si128(to, h) : _mm_storeu_si128(to, h);
}
NK_HD void put(f16* p, vec<float> a, bool past) { put_half(p, narrow_f16(a), past); }
NK_HD void put(bf16* p, vec<float> a, bool past) { put_half(p, narrow_bf16(a), past); }

}  // namespace nk::NK_ISA
