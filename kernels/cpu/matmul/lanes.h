// The vector registers of one instruction set under one spelling, as the matmul kernels need them.
// A Lanes class has: Unit (what a packed operand holds), Acc (what sums are kept in), Reg (a vector of units),
// AccReg (a vector of sums), W (lanes), group (k per unit) and Mask (the first n lanes).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
// g++ 12 takes the "undefined" vectors of its own header for uninitialized variables.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#define NK_INLINE inline __attribute__((always_inline))
#define NK_LAMBDA_INLINE __attribute__((always_inline))

namespace nk::NK_ISA {

struct F16 {
    uint16_t bits;
};
struct BF16 {
    uint16_t bits;
};

// ---- one element at a time ------------------------------------------------------------------------------------

NK_INLINE float bits_to_float(uint32_t u) {
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}
NK_INLINE uint32_t float_to_bits(float f) {
    uint32_t u;
    std::memcpy(&u, &f, 4);
    return u;
}

NK_INLINE float to_acc(float x) { return x; }
NK_INLINE double to_acc(double x) { return x; }
NK_INLINE float to_acc(BF16 x) { return bits_to_float(uint32_t{x.bits} << 16); }
NK_INLINE float to_acc(F16 x) {
#if defined(__F16C__)
    return _cvtsh_ss(x.bits);
#else
    const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
    if (rest >= 0x0f800000) return bits_to_float(sign | (rest + 0x70000000));  // infinity and NaN
    // no float on the way is subnormal: the processor may have been told to flush those
    const float value = rest < 0x00800000 ? float(rest >> 13) * 0x1p-24f : bits_to_float(rest + 0x38000000);
    return bits_to_float(sign | float_to_bits(value));
#endif
}

NK_INLINE void from_acc(float& out, float x) { out = x; }
NK_INLINE void from_acc(double& out, double x) { out = x; }
NK_INLINE void from_acc(BF16& out, float x) {
    const uint32_t u = float_to_bits(x);
    out.bits = x != x ? uint16_t((u >> 16) | 0x40) : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
NK_INLINE void from_acc(F16& out, float x) {
#if defined(__F16C__)
    out.bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
    const uint32_t u = float_to_bits(x), sign = (u >> 16) & 0x8000, mag = u & 0x7fffffff;
    if (mag > 0x7f800000)
        out.bits = uint16_t(sign | 0x7e00 | ((mag >> 13) & 0x3ff));
    else if (mag >= 0x477ff000)
        out.bits = uint16_t(sign | 0x7c00);  // rounds to infinity
    else if (mag < 0x38800000)               // subnormal: let the float adder round at 2^-24
        out.bits = uint16_t(sign | (float_to_bits(bits_to_float(mag) + 0.5f) - float_to_bits(0.5f)));
    else
        out.bits = uint16_t(sign | ((mag + 0xfff + ((mag >> 13) & 1) - 0x38000000) >> 13));
#endif
}

// ---- f32 and f64 ----------------------------------------------------------------------------------------------

#if defined(__AVX512F__)

struct LanesF32 {
    using Unit = float;
    using Acc = float;
    using Reg = __m512;
    using AccReg = __m512;
    using Mask = __mmask16;
    static constexpr int W = 16, group = 1, kMaxRows = 14, kVectors = 2, kWideRows = 6, kWideVectors = 4, kDotRows = 6;
    static constexpr bool kMaskIsFree = true;

    static NK_INLINE Mask mask(int64_t n) { return n >= W ? Mask(0xffff) : n <= 0 ? Mask(0) : Mask((1u << n) - 1); }
    static NK_INLINE AccReg zero() { return _mm512_setzero_ps(); }
    static NK_INLINE AccReg set(float x) { return _mm512_set1_ps(x); }
    static NK_INLINE Reg load(const float* p) { return _mm512_loadu_ps(p); }
    static NK_INLINE Reg load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
    static NK_INLINE Reg load(const F16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
    static NK_INLINE Reg load(const F16* p, Mask m) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)); }
    static NK_INLINE Reg widen(__m256i x) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
    }
    static NK_INLINE Reg load(const BF16* p) { return widen(_mm256_loadu_si256((const __m256i*)p)); }
    static NK_INLINE Reg load(const BF16* p, Mask m) { return widen(_mm256_maskz_loadu_epi16(m, p)); }
    static NK_INLINE void store(float* p, AccReg x) { _mm512_storeu_ps(p, x); }
    static NK_INLINE void store(float* p, AccReg x, Mask m) { _mm512_mask_storeu_ps(p, m, x); }
    static NK_INLINE void store(F16* p, AccReg x, Mask m) {
        _mm256_mask_storeu_epi16(p, m, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
    static NK_INLINE void store(BF16* p, AccReg x, Mask m) {
#if defined(__AVX512BF16__)
        return _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(x));
#endif
        const __m512i u = _mm512_castps_si512(x);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
        __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
        _mm256_mask_storeu_epi16(p, m, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
    }
    static NK_INLINE Reg broadcast(const char* p) { return _mm512_set1_ps(*(const float*)p); }
    using Lane = int32_t;
    using Index = __m512i;
    static NK_INLINE Index index(const Lane* p) { return _mm512_loadu_si512(p); }
    static NK_INLINE Reg permute(Index i, Reg x) { return _mm512_permutexvar_ps(i, x); }
    static NK_INLINE AccReg fma(Reg a, Reg b, AccReg c) { return _mm512_fmadd_ps(a, b, c); }
    static NK_INLINE AccReg add(AccReg a, AccReg b) { return _mm512_add_ps(a, b); }
    static NK_INLINE AccReg mul(AccReg a, AccReg b) { return _mm512_mul_ps(a, b); }

    // Sums of the lanes of four vectors.
    static NK_INLINE void sum4(const AccReg (&x)[4], float* out) {
        __m128 s[4];
        for (int i = 0; i < 4; ++i) {
            const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps(x[i], 1));
            s[i] = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
        }
        _MM_TRANSPOSE4_PS(s[0], s[1], s[2], s[3]);
        _mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(s[0], s[1]), _mm_add_ps(s[2], s[3])));
    }
    static NK_INLINE void transpose(Reg (&r)[16]);
};

struct LanesF64 {
    using Unit = double;
    using Acc = double;
    using Reg = __m512d;
    using AccReg = __m512d;
    using Mask = __mmask8;
    static constexpr int W = 8, group = 1, kMaxRows = 14, kVectors = 2, kWideRows = 6, kWideVectors = 4, kDotRows = 6;
    static constexpr bool kMaskIsFree = true;

    static NK_INLINE Mask mask(int64_t n) { return n >= W ? Mask(0xff) : n <= 0 ? Mask(0) : Mask((1u << n) - 1); }
    static NK_INLINE AccReg zero() { return _mm512_setzero_pd(); }
    static NK_INLINE AccReg set(double x) { return _mm512_set1_pd(x); }
    static NK_INLINE Reg load(const double* p) { return _mm512_loadu_pd(p); }
    static NK_INLINE Reg load(const double* p, Mask m) { return _mm512_maskz_loadu_pd(m, p); }
    static NK_INLINE void store(double* p, AccReg x) { _mm512_storeu_pd(p, x); }
    static NK_INLINE void store(double* p, AccReg x, Mask m) { _mm512_mask_storeu_pd(p, m, x); }
    static NK_INLINE Reg broadcast(const char* p) { return _mm512_set1_pd(*(const double*)p); }
    using Lane = int64_t;
    using Index = __m512i;
    static NK_INLINE Index index(const Lane* p) { return _mm512_loadu_si512(p); }
    static NK_INLINE Reg permute(Index i, Reg x) { return _mm512_permutexvar_pd(i, x); }
    static NK_INLINE AccReg fma(Reg a, Reg b, AccReg c) { return _mm512_fmadd_pd(a, b, c); }
    static NK_INLINE AccReg add(AccReg a, AccReg b) { return _mm512_add_pd(a, b); }
    static NK_INLINE AccReg mul(AccReg a, AccReg b) { return _mm512_mul_pd(a, b); }
    static NK_INLINE void sum4(const AccReg (&x)[4], double* out) {
        for (int i = 0; i < 4; ++i) out[i] = _mm512_reduce_add_pd(x[i]);
    }
    static NK_INLINE void transpose(Reg (&r)[8]) {
        __m512d t[8];
        for (int i = 0; i < 8; i += 2)
            t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
        for (int i = 0; i < 2; ++i) {  // the 128-bit parts, as a 4 x 4 matrix
            const __m512d a = _mm512_shuffle_f64x2(t[i], t[i + 2], 0x88),
                          b = _mm512_shuffle_f64x2(t[i], t[i + 2], 0xdd);
            const __m512d c = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0x88);
            const __m512d d = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0xdd);
            r[i] = _mm512_shuffle_f64x2(a, c, 0x88), r[i + 4] = _mm512_shuffle_f64x2(a, c, 0xdd);
            r[i + 2] = _mm512_shuffle_f64x2(b, d, 0x88), r[i + 6] = _mm512_shuffle_f64x2(b, d, 0xdd);
        }
    }
};

NK_INLINE void LanesF32::transpose(Reg (&r)[16]) {
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

#elif defined(__AVX2__)

struct LaneMask {
    __m256i bits;
    int n;
};

struct LanesF32 {
    using Unit = float;
    using Acc = float;
    using Reg = __m256;
    using AccReg = __m256;
    using Mask = LaneMask;
    static constexpr int W = 8, group = 1, kMaxRows = 6, kVectors = 2, kWideRows = 0, kWideVectors = 0, kDotRows = 3;
    static constexpr bool kMaskIsFree = false;

    static NK_INLINE Mask mask(int64_t n) {
        const int c = n >= W ? W : n <= 0 ? 0 : int(n);
        return {_mm256_cmpgt_epi32(_mm256_set1_epi32(c), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)), c};
    }
    static NK_INLINE AccReg zero() { return _mm256_setzero_ps(); }
    static NK_INLINE AccReg set(float x) { return _mm256_set1_ps(x); }
    static NK_INLINE Reg load(const float* p) { return _mm256_loadu_ps(p); }
    static NK_INLINE Reg load(const float* p, Mask m) { return _mm256_maskload_ps(p, m.bits); }
    static NK_INLINE Reg load(const F16* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
    static NK_INLINE Reg load(const BF16* p) {
        const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    }
    template <class S>  // no masked load of 16 bits here: through a buffer
    static NK_INLINE Reg load(const S* p, Mask m) {
        if (m.n == W) return load(p);
        S part[W] = {};
        for (int i = 0; i < m.n; ++i) part[i] = p[i];
        return load(part);
    }
    static NK_INLINE void store(float* p, AccReg x) { _mm256_storeu_ps(p, x); }
    static NK_INLINE void store(float* p, AccReg x, Mask m) {
        if (m.n == W) return store(p, x);
        _mm256_maskstore_ps(p, m.bits, x);
    }
    static NK_INLINE void store_part(void* p, __m128i x, int n) {
        if (n == W) return _mm_storeu_si128((__m128i*)p, x);
        std::memcpy(p, &x, 2 * size_t(n));
    }
    static NK_INLINE void store(F16* p, AccReg x, Mask m) {
        store_part(p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT), m.n);
    }
    static NK_INLINE void store(BF16* p, AccReg x, Mask m) {
        const __m256i u = _mm256_castps_si256(x);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
        __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
        r = _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
        r = _mm256_srli_epi32(r, 16);
        r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
        store_part(p, _mm256_castsi256_si128(r), m.n);
    }
    static NK_INLINE Reg broadcast(const char* p) { return _mm256_broadcast_ss((const float*)p); }
    static NK_INLINE AccReg fma(Reg a, Reg b, AccReg c) { return _mm256_fmadd_ps(a, b, c); }
    static NK_INLINE AccReg add(AccReg a, AccReg b) { return _mm256_add_ps(a, b); }
    static NK_INLINE AccReg mul(AccReg a, AccReg b) { return _mm256_mul_ps(a, b); }
    static NK_INLINE void sum4(const AccReg (&x)[4], float* out) {
        const __m256 h = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
        _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
    }
    static NK_INLINE void transpose(Reg (&r)[8]) {
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
};

struct LanesF64 {
    using Unit = double;
    using Acc = double;
    using Reg = __m256d;
    using AccReg = __m256d;
    using Mask = LaneMask;
    static constexpr int W = 4, group = 1, kMaxRows = 6, kVectors = 2, kWideRows = 0, kWideVectors = 0, kDotRows = 3;
    static constexpr bool kMaskIsFree = false;

    static NK_INLINE Mask mask(int64_t n) {
        const int c = n >= W ? W : n <= 0 ? 0 : int(n);
        return {_mm256_cmpgt_epi64(_mm256_set1_epi64x(c), _mm256_setr_epi64x(0, 1, 2, 3)), c};
    }
    static NK_INLINE AccReg zero() { return _mm256_setzero_pd(); }
    static NK_INLINE AccReg set(double x) { return _mm256_set1_pd(x); }
    static NK_INLINE Reg load(const double* p) { return _mm256_loadu_pd(p); }
    static NK_INLINE Reg load(const double* p, Mask m) { return _mm256_maskload_pd(p, m.bits); }
    static NK_INLINE void store(double* p, AccReg x) { _mm256_storeu_pd(p, x); }
    static NK_INLINE void store(double* p, AccReg x, Mask m) {
        if (m.n == W) return store(p, x);
        _mm256_maskstore_pd(p, m.bits, x);
    }
    static NK_INLINE Reg broadcast(const char* p) { return _mm256_broadcast_sd((const double*)p); }
    static NK_INLINE AccReg fma(Reg a, Reg b, AccReg c) { return _mm256_fmadd_pd(a, b, c); }
    static NK_INLINE AccReg add(AccReg a, AccReg b) { return _mm256_add_pd(a, b); }
    static NK_INLINE AccReg mul(AccReg a, AccReg b) { return _mm256_mul_pd(a, b); }
    static NK_INLINE void sum4(const AccReg (&x)[4], double* out) {
        for (int i = 0; i < 4; ++i) {
            const __m128d h = _mm_add_pd(_mm256_castpd256_pd128(x[i]), _mm256_extractf128_pd(x[i], 1));
            out[i] = _mm_cvtsd_f64(_mm_add_sd(h, _mm_unpackhi_pd(h, h)));
        }
    }
    static NK_INLINE void transpose(Reg (&r)[4]) {
        const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
        const __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
        r[0] = _mm256_permute2f128_pd(a, c, 0x20), r[2] = _mm256_permute2f128_pd(a, c, 0x31);
        r[1] = _mm256_permute2f128_pd(b, d, 0x20), r[3] = _mm256_permute2f128_pd(b, d, 0x31);
    }
};

#else  // plain C++

template <class T>
struct PlainLanes {
    using Unit = T;
    using Acc = T;
    using Reg = T;
    using AccReg = T;
    using Mask = bool;
    static constexpr int W = 1, group = 1, kMaxRows = 4, kVectors = 4, kWideRows = 0, kWideVectors = 0, kDotRows = 2;
    static constexpr bool kMaskIsFree = false;

    static NK_INLINE Mask mask(int64_t n) { return n > 0; }
    static NK_INLINE T zero() { return 0; }
    static NK_INLINE T set(T x) { return x; }
    template <class S>
    static NK_INLINE T load(const S* p) {
        return to_acc(*p);
    }
    template <class S>
    static NK_INLINE T load(const S* p, Mask m) {
        return m ? to_acc(*p) : T(0);
    }
    static NK_INLINE void store(T* p, T x) { *p = x; }
    template <class S>
    static NK_INLINE void store(S* p, T x, Mask m) {
        if (m) from_acc(*p, x);
    }
    static NK_INLINE T broadcast(const char* p) { return *(const T*)p; }
    static NK_INLINE T fma(T a, T b, T c) { return a * b + c; }
    static NK_INLINE T add(T a, T b) { return a + b; }
    static NK_INLINE T mul(T a, T b) { return a * b; }
    static NK_INLINE void sum4(const T (&x)[4], T* out) {
        for (int i = 0; i < 4; ++i) out[i] = x[i];
    }
};
using LanesF32 = PlainLanes<float>;
using LanesF64 = PlainLanes<double>;

#endif

// ---- pairs of bf16, summed in f32 -----------------------------------------------------------------------------

#if defined(__AVX512BF16__)
struct LanesPairs : LanesF32 {
    using Unit = uint32_t;  // two bf16, consecutive in k
    using Reg = __m512i;
    static constexpr int group = 2, kWideRows = 0, kWideVectors = 0;

    using LanesF32::load;
    static NK_INLINE Reg load(const uint32_t* p) { return _mm512_loadu_si512(p); }
    static NK_INLINE Reg load(const uint32_t* p, Mask m) { return _mm512_maskz_loadu_epi32(m, p); }
    static NK_INLINE Reg broadcast(const char* p) { return _mm512_set1_epi32(*(const int*)p); }
    static NK_INLINE AccReg fma(Reg a, Reg b, AccReg c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
};
#endif

// f(Index<0>{}), ..., f(Index<N - 1>{}): a loop that is unrolled for certain, so that arrays stay in registers.
template <int I>
struct Index {
    static constexpr int value = I;
    constexpr operator int() const { return I; }
};
template <int N, class F>
NK_INLINE void unroll(F&& f) {
    if constexpr (N > 0) {
        unroll<N - 1>(f);
        f(Index<N - 1>{});
    }
}

}  // namespace nk::NK_ISA
