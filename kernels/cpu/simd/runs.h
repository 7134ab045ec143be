// Short runs of elements copied as they are: what packing a window of an image consists of.
#pragma once

#include <cstdint>
#include <cstring>

#include "intrinsics.h"
#include "number.h"

namespace nk::NK_ISA {

// n elements side by side.
template <class S>
inline __attribute__((always_inline)) void copy_run(S* to, const S* from, int64_t n) {
#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)
    char* d = reinterpret_cast<char*>(to);
    const char* s = reinterpret_cast<const char*>(from);
    int64_t bytes = n * int64_t(sizeof(S));
    for (; bytes >= 64; bytes -= 64, d += 64, s += 64) _mm512_storeu_si512(d, _mm512_loadu_si512(s));
    if (bytes > 0) {
        const __mmask64 m = (__mmask64(1) << bytes) - 1;
        _mm512_mask_storeu_epi8(d, m, _mm512_maskz_loadu_epi8(m, s));
    }
#else
    constexpr int64_t kEach = 16 / int64_t(sizeof(S));
    for (; n >= kEach; n -= kEach, to += kEach, from += kEach) std::memcpy(to, from, 16);
    for (int64_t i = 0; i < n; ++i) to[i] = from[i];
#endif
}

template <class S>
inline __attribute__((always_inline)) void clear_run(S* to, int64_t n) {
#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)
    char* d = reinterpret_cast<char*>(to);
    int64_t bytes = n * int64_t(sizeof(S));
    for (; bytes >= 64; bytes -= 64, d += 64) _mm512_storeu_si512(d, _mm512_setzero_si512());
    if (bytes > 0) _mm512_mask_storeu_epi8(d, (__mmask64(1) << bytes) - 1, _mm512_setzero_si512());
#else
    for (int64_t i = 0; i < n; ++i) to[i] = S{};
#endif
}

// `count` rows of n elements, `to_row` and `from_row` apart; of each those in [lo, hi) are copied, the others cleared.
// `from` is where element 0 would be.
template <class S>
inline __attribute__((always_inline)) void copy_windows(S* to, int64_t to_row, const S* from, int64_t from_row,
                                                        int64_t lo, int64_t hi, int64_t n, int64_t count) {
#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)
    constexpr int64_t kLanes = 64 / int64_t(sizeof(S));
    const auto bits = [](int64_t k) { return k >= kLanes ? ~uint64_t(0) : k <= 0 ? 0 : (uint64_t(1) << k) - 1; };
    const auto copy = [](S* d, const S* s, uint64_t in, uint64_t out) __attribute__((always_inline)) {
        if constexpr (sizeof(S) == 4)
            _mm512_mask_storeu_epi32(d, __mmask16(out), _mm512_maskz_loadu_epi32(__mmask16(in), s));
        else if constexpr (sizeof(S) == 2)
            _mm512_mask_storeu_epi16(d, __mmask32(out), _mm512_maskz_loadu_epi16(__mmask32(in), s));
        else
            _mm512_mask_storeu_epi64(d, __mmask8(out), _mm512_maskz_loadu_epi64(__mmask8(in), s));
    };
    for (int64_t v = 0; v < n; v += kLanes) {
        const uint64_t in = bits(hi - v) & ~bits(lo - v), out = bits(n - v);
        S* d = to + v;
        const S* s = from + v;
        for (int64_t i = 0; i < count; ++i, d += to_row, s += from_row) copy(d, s, in, out);
    }
#else
    for (int64_t i = 0; i < count; ++i, to += to_row, from += from_row) {
        clear_run(to, lo);
        copy_run(to + lo, from + lo, hi - lo);
        clear_run(to + hi, n - hi);
    }
#endif
}

// n elements, `step` apart where they come from.
template <class S>
inline __attribute__((always_inline)) void copy_run(S* to, const S* from, int64_t n, int64_t step) {
    if (step == 1) return copy_run(to, from, n);
#if defined(NK_ISA_avx512) || defined(NK_ISA_avx512bf16)
    if constexpr (sizeof(S) == 4) {
        if (step == 2) {
            const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            for (int64_t i = 0; i < n; i += 16) {
                const int64_t left = n - i < 16 ? n - i : 16, span = 2 * left - 1;
                const __mmask16 low = span >= 16 ? 0xffff : __mmask16((1u << span) - 1);
                const __mmask16 high = span > 16 ? __mmask16((1u << (span - 16)) - 1) : 0;
                const __m512i a = _mm512_maskz_loadu_epi32(low, from + 2 * i);
                const __m512i b = _mm512_maskz_loadu_epi32(high, from + 2 * i + 16);
                _mm512_mask_storeu_epi32(to + i, __mmask16((1u << left) - 1), _mm512_permutex2var_epi32(a, even, b));
            }
            return;
        }
    }
    if constexpr (sizeof(S) == 4) {
        if (step == 4) {  // eight of two vectors, twice
            const __m512i fourth = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0);
            for (int64_t i = 0; i < n; i += 8) {
                const int64_t left = n - i < 8 ? n - i : 8, span = 4 * left - 3;
                const __mmask16 low = span >= 16 ? 0xffff : __mmask16((1u << span) - 1);
                const __mmask16 high = span > 16 ? __mmask16((1u << (span - 16)) - 1) : 0;
                const __m512i a = _mm512_maskz_loadu_epi32(low, from + 4 * i);
                const __m512i b = _mm512_maskz_loadu_epi32(high, from + 4 * i + 16);
                _mm512_mask_storeu_epi32(to + i, __mmask16((1u << left) - 1), _mm512_permutex2var_epi32(a, fourth, b));
            }
            return;
        }
    }
    if constexpr (sizeof(S) == 2) {
        if (step == 4) {
            for (int64_t i = 0; i < n; i += 8) {
                const int64_t left = n - i < 8 ? n - i : 8, span = 4 * left - 3;
                const __m512i a = _mm512_maskz_loadu_epi16(__mmask32((uint64_t(1) << span) - 1), from + 4 * i);
                _mm_mask_storeu_epi16(to + i, __mmask8((1u << left) - 1), _mm512_cvtepi64_epi16(a));
            }
            return;
        }
        if (step == 2) {
            for (int64_t i = 0; i < n; i += 16) {
                const int64_t left = n - i < 16 ? n - i : 16, span = 2 * left - 1;
                const __m512i a = _mm512_maskz_loadu_epi16(__mmask32((uint64_t(1) << span) - 1), from + 2 * i);
                _mm256_mask_storeu_epi16(to + i, __mmask16((1u << left) - 1), _mm512_cvtepi32_epi16(a));
            }
            return;
        }
    }
#endif
    for (int64_t i = 0; i < n; ++i) to[i] = from[i * step];
}

}  // namespace nk::NK_ISA
