// Vectors seen as rows of a matrix: sums, transposes, permutations.
#pragma once

#include "vec.h"

namespace nk::NK_ISA {

#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)

// The sums of the lanes of four vectors.
NK_HD void sum4(const vec<float> (&x)[4], float* out) {
    __m128 s[4];
    for (int i = 0; i < 4; ++i) {
        const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(x[i].v), _mm512_extractf32x8_ps(x[i].v, 1));
        s[i] = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    }
    _MM_TRANSPOSE4_PS(s[0], s[1], s[2], s[3]);
    _mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(s[0], s[1]), _mm_add_ps(s[2], s[3])));
}
NK_HD void sum4(const vec<double> (&x)[4], double* out) {
    for (int i = 0; i < 4; ++i) out[i] = _mm512_reduce_add_pd(x[i].v);
}

// Rows and columns of a square of lanes exchanged. Of the machine's registers: arrays of vec leave them for the stack.
NK_HD void transpose(__m512 (&r)[16]) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 4) {  // 4 x 4 transposes inside every 128-bit part
        const __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        const __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44), t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44), t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; ++i) {  // then the 128-bit parts themselves, as a 4 x 4 matrix
        const __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
        const __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
        const __m512 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88), r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88), r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
NK_HD void transpose(__m512d (&r)[8]) {
    __m512d t[8];
    for (int i = 0; i < 8; i += 2)
        t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
    for (int i = 0; i < 2; ++i) {  // the 128-bit parts, as a 4 x 4 matrix
        const __m512d a = _mm512_shuffle_f64x2(t[i], t[i + 2], 0x88), b = _mm512_shuffle_f64x2(t[i], t[i + 2], 0xdd);
        const __m512d c = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0x88);
        const __m512d d = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0xdd);
        r[i] = _mm512_shuffle_f64x2(a, c, 0x88), r[i + 4] = _mm512_shuffle_f64x2(a, c, 0xdd);
        r[i + 2] = _mm512_shuffle_f64x2(b, d, 0x88), r[i + 6] = _mm512_shuffle_f64x2(b, d, 0xdd);
    }
}

// Any lane to any place: made of the lane that goes to each place.
template <class S>
struct permutation;
template <>
struct permutation<float> {
    using lane = int32_t;
    __m512i of;
    explicit NK_HD permutation(const lane* p) : of(_mm512_loadu_si512(p)) {}
    permutation() = default;
};
template <>
struct permutation<double> {
    using lane = int64_t;
    __m512i of;
    explicit NK_HD permutation(const lane* p) : of(_mm512_loadu_si512(p)) {}
    permutation() = default;
};
NK_HD vec<float> permute(permutation<float> p, vec<float> x) { return _mm512_permutexvar_ps(p.of, x.v); }
NK_HD vec<double> permute(permutation<double> p, vec<double> x) { return _mm512_permutexvar_pd(p.of, x.v); }

#elif defined(NK_ISA_avx2)

NK_HD void sum4(const vec<float> (&x)[4], float* out) {
    const __m256 h = _mm256_hadd_ps(_mm256_hadd_ps(x[0].v, x[1].v), _mm256_hadd_ps(x[2].v, x[3].v));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}
NK_HD void sum4(const vec<double> (&x)[4], double* out) {
    for (int i = 0; i < 4; ++i) {
        const __m128d h = _mm_add_pd(_mm256_castpd256_pd128(x[i].v), _mm256_extractf128_pd(x[i].v, 1));
        out[i] = _mm_cvtsd_f64(_mm_add_sd(h, _mm_unpackhi_pd(h, h)));
    }
}
NK_HD void transpose(__m256 (&r)[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 4) {
        const __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        const __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44), t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44), t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
NK_HD void transpose(__m256d (&r)[4]) {
    const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
    const __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
    r[0] = _mm256_permute2f128_pd(a, c, 0x20), r[2] = _mm256_permute2f128_pd(a, c, 0x31);
    r[1] = _mm256_permute2f128_pd(b, d, 0x20), r[3] = _mm256_permute2f128_pd(b, d, 0x31);
}

#else

template <class S>
NK_HD void sum4(const vec<S> (&x)[4], S* out) {
    for (int i = 0; i < 4; ++i) out[i] = x[i].v;
}

#endif

}  // namespace nk::NK_ISA
