// The elements of matrices as the tensor cores take them, and their way to and from double precision, in which every
// product of two of them is exact (integers of up to 8 bits included).
#pragma once

#include <array>

#include "../decode/types.h"
#include "numbers.h"

namespace emu {

enum class Element : uint8_t { none, f16, bf16, tf32, e4m3, e5m2, s8, u8, s4, u4, b1, f64 };

constexpr uint32_t bits_of(Element e) {
    switch (e) {
        case Element::none:
            return 0;
        case Element::f64:
            return 64;
        case Element::tf32:
            return 32;
        case Element::f16:
        case Element::bf16:
            return 16;
        case Element::s4:
        case Element::u4:
            return 4;
        case Element::b1:
            return 1;
        default:
            return 8;
    }
}

inline Element element_of(ptx::Name name) {
    constexpr std::pair<ptx::Name, Element> names[] = {
        {"f16", Element::f16},   {"bf16", Element::bf16}, {"tf32", Element::tf32}, {"e4m3", Element::e4m3},
        {"e5m2", Element::e5m2}, {"s8", Element::s8},     {"u8", Element::u8},     {"s4", Element::s4},
        {"u4", Element::u4},     {"b1", Element::b1},     {"f64", Element::f64}};
    for (const auto& [n, e] : names)
        if (n == name) return e;
    return Element::none;
}

constexpr bool is_integer(Element e) { return e >= Element::s8 && e <= Element::b1; }

// e4m3 has no infinity; e5m2 is the upper half of f16.
inline float from_e4m3(uint8_t x) {
    const int exponent = x >> 3 & 15, fraction = x & 7;
    if ((x & 0x7f) == 0x7f) return std::bit_cast<float>(kNanF32);
    const float magnitude = exponent == 0 ? static_cast<float>(fraction) / 512
                                          : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
    return x & 0x80 ? -magnitude : magnitude;
}
inline float from_e5m2(uint8_t x) { return from_half(static_cast<uint16_t>(x << 8)); }

inline const std::array<double, 256>& e4m3_table() {
    static const std::array<double, 256> table = [] {
        std::array<double, 256> t{};
        for (size_t k = 0; k < t.size(); ++k) t[k] = from_e4m3(static_cast<uint8_t>(k));
        return t;
    }();
    return table;
}

template <class T>
const T* as(const void* p) {
    return static_cast<const T*>(p);
}

inline void widen(__m256 x, double* to) {
    _mm256_storeu_pd(to, _mm256_cvtps_pd(_mm256_castps256_ps128(x)));
    _mm256_storeu_pd(to + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
}

// Eight at once of the types that are used most; false for the others.
inline bool unpack_eight(Element e, const void* from, double* to) {
    if (e != Element::f16 && e != Element::bf16) return false;
    const __m128i x = _mm_loadu_si128(static_cast<const __m128i*>(from));
    widen(e == Element::f16 ? _mm256_cvtph_ps(x) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)),
          to);
    return true;
}

// Unpacks `count` elements that lie one behind the other.
inline void unpack(Element e, const void* from, uint32_t count, double* to) {
    if (count == 8 && unpack_eight(e, from, to)) return;
    switch (e) {
        case Element::f16:
            for (uint32_t k = 0; k < count; ++k) to[k] = from_half(as<uint16_t>(from)[k]);
            return;
        case Element::bf16:
            for (uint32_t k = 0; k < count; ++k) to[k] = from_bfloat(as<uint16_t>(from)[k]);
            return;
        case Element::tf32:  // the low 13 bits do not take part
            for (uint32_t k = 0; k < count; ++k) to[k] = std::bit_cast<float>(as<uint32_t>(from)[k] & 0xffffe000);
            return;
        case Element::e4m3:
            for (uint32_t k = 0; k < count; ++k) to[k] = e4m3_table()[as<uint8_t>(from)[k]];
            return;
        case Element::e5m2:
            for (uint32_t k = 0; k < count; ++k) to[k] = from_e5m2(as<uint8_t>(from)[k]);
            return;
        case Element::s8:
            for (uint32_t k = 0; k < count; ++k) to[k] = as<int8_t>(from)[k];
            return;
        case Element::u8:
            for (uint32_t k = 0; k < count; ++k) to[k] = as<uint8_t>(from)[k];
            return;
        case Element::s4:
            for (uint32_t k = 0; k < count; ++k)
                to[k] = static_cast<int8_t>(as<uint8_t>(from)[k / 2] << (k % 2 ? 0 : 4)) >> 4;
            return;
        case Element::u4:
            for (uint32_t k = 0; k < count; ++k) to[k] = as<uint8_t>(from)[k / 2] >> (k % 2 ? 4 : 0) & 15;
            return;
        case Element::b1:
            for (uint32_t k = 0; k < count; ++k) to[k] = as<uint8_t>(from)[k / 8] >> k % 8 & 1;
            return;
        case Element::f64:
            for (uint32_t k = 0; k < count; ++k) to[k] = as<double>(from)[k];
            return;
        case Element::none:
            return;
    }
}

// What sums are made in and rounded to once. A sum of integers wraps, or is saturated.
enum class Sum : uint8_t { f32, f16, s32, s32_saturated, f64 };

inline uint32_t pack_integer(double x, bool saturates) {
    const auto whole = static_cast<int64_t>(x);
    if (!saturates) return static_cast<uint32_t>(whole);
    return static_cast<uint32_t>(std::min<int64_t>(std::max<int64_t>(whole, INT32_MIN), INT32_MAX));
}
inline uint16_t pack_half(double x) { return to_half(to_odd(x)); }
inline float pack_float(double x) { return canonical(static_cast<float>(x)); }

// C += A * B for `rows` (a multiple of 4) of K elements. B and C lie in panels of eight columns: b[n / 8][k][n % 8],
// c[n / 8][row][n % 8]. Products are exact, so that a fused step is as good as two.
inline void multiply_add(uint32_t rows, uint32_t n, uint32_t k, const double* a, const double* b, double* c) {
    for (uint32_t panel = 0; panel < n / 8; ++panel, b += k * 8)
        for (uint32_t row = 0; row < rows; row += 4, c += 32) {
            __m256d sum[4][2];
            for (uint32_t r = 0; r < 4; ++r)
                for (uint32_t h = 0; h < 2; ++h) sum[r][h] = _mm256_loadu_pd(c + 8 * r + 4 * h);
            for (uint32_t step = 0; step < k; ++step) {
                const __m256d low = _mm256_loadu_pd(b + step * 8), high = _mm256_loadu_pd(b + step * 8 + 4);
                for (uint32_t r = 0; r < 4; ++r) {
                    const __m256d x = _mm256_broadcast_sd(a + (row + r) * k + step);
                    sum[r][0] = _mm256_fmadd_pd(x, low, sum[r][0]);
                    sum[r][1] = _mm256_fmadd_pd(x, high, sum[r][1]);
                }
            }
            for (uint32_t r = 0; r < 4; ++r)
                for (uint32_t h = 0; h < 2; ++h) _mm256_storeu_pd(c + 8 * r + 4 * h, sum[r][h]);
        }
}

}  // namespace emu
