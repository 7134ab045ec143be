// Packing: a block of an operand rewritten so that the microkernel reads it in order, converted on the way.
//
// A "panel" is [k][width] units: width columns of b (or rows of a) side by side for each step of k.
// "Rows" are [rows][k] units: rows of a as they are, only closer together, for an a that is contiguous along k.
// A unit is one element, or the pair of elements 2k and 2k + 1 where the microkernel multiplies pairs.
#pragma once

#include "lanes.h"

namespace nk::NK_ISA {

// Unit number `unit` of a column whose elements are `step` apart; elements from `k` on are zeros.
template <class L, class S>
NK_INLINE typename L::Unit read_unit(const S* p, int64_t step, int64_t unit, int64_t k) {
    if constexpr (L::group == 2) {
        const uint32_t low = p[2 * unit * step].bits;
        const uint32_t high = 2 * unit + 1 < k ? p[(2 * unit + 1) * step].bits : 0;
        return low | high << 16;
    } else {
        return to_number(p[unit * step]);
    }
}

// One vector: columns 0..W-1 at step `unit` of an operand that is contiguous across columns.
template <class L, class S>
NK_INLINE typename L::Reg read_across(const S* p, int64_t step, int64_t unit, [[maybe_unused]] int64_t k,
                                      typename L::Mask m) {
#if defined(__AVX512BF16__)
    if constexpr (L::group == 2) {
        const __m256i low = _mm256_maskz_loadu_epi16(m.m, p + 2 * unit * step);
        const __m256i high =
            2 * unit + 1 < k ? _mm256_maskz_loadu_epi16(m.m, p + (2 * unit + 1) * step) : _mm256_setzero_si256();
        return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
    }
#endif
    if constexpr (L::group == 1) return L::load(p + unit * step, m);
}

// One vector: W consecutive units of one column that is contiguous along k; units from `k` on are zeros.
template <class L, class S>
NK_INLINE typename L::Reg read_along(const S* p, int64_t unit, int64_t k) {
#if defined(__AVX512BF16__)
    if constexpr (L::group == 2) {
        const int64_t left = k - 2 * unit;
        const __mmask32 m = left >= 32 ? ~__mmask32(0) : __mmask32((1u << left) - 1);
        return _mm512_maskz_loadu_epi16(m, p + 2 * unit);
    }
#endif
    if constexpr (L::group == 1) return L::load(p + unit, L::mask(k - unit));
}

template <class L>
NK_INLINE void store_units(typename L::Unit* p, typename L::Reg x) {
    if constexpr (L::group == 2)
        std::memcpy(p, &x, sizeof(x));
    else
        L::store(p, x);
}

template <class L>
concept Transposes = L::group == 2 || requires(typename L::Raw (&r)[L::W]) { transpose(r); };

#if defined(__AVX512BF16__)
NK_INLINE void transpose_units(__m512i (&r)[16]) {
    __m512 f[16];
    for (int i = 0; i < 16; ++i) f[i] = _mm512_castsi512_ps(r[i]);
    transpose(f);
    for (int i = 0; i < 16; ++i) r[i] = _mm512_castps_si512(f[i]);
}
#endif
template <class L>
NK_INLINE void transpose_in_place(typename L::Raw (&r)[L::W]) {
#if defined(__AVX512BF16__)
    if constexpr (L::group == 2) return transpose_units(r);
#endif
    if constexpr (L::group == 1) transpose(r);
}

// dst[unit][ld] for `width` columns of `k` elements; ld is a multiple of W, columns up to ld are filled with zeros.
template <class L, class S>
void pack_panel(typename L::Unit* dst, int64_t ld, const S* src, int64_t column, int64_t step, int64_t width,
                int64_t k) {
    constexpr int W = L::W;
    const int64_t units = (k + L::group - 1) / L::group;
    if (column == 1) {
        for (int64_t u = 0; u < units; ++u)
            for (int64_t c = 0; c < ld; c += W)
                store_units<L>(dst + u * ld + c, read_across<L>(src + c, step, u, k, L::mask(width - c)));
        return;
    }
    if constexpr (Transposes<L>) {
        if (step == 1) {
            for (int64_t c = 0; c < ld; c += W) {
                const int64_t columns = width - c < W ? width - c : W;
                for (int64_t u = 0; u < units; u += W) {
                    typename L::Raw r[W];
                    if (columns == W)
                        unroll<W>([&](auto i) { r[i] = L::raw(read_along<L>(src + (c + i) * column, u, k)); });
                    else
                        for (int i = 0; i < W; ++i)
                            r[i] =
                                i < columns ? L::raw(read_along<L>(src + (c + i) * column, u, k)) : typename L::Raw{};
                    transpose_in_place<L>(r);
                    typename L::Unit* d = dst + u * ld + c;
                    if (units - u >= W)
                        unroll<W>([&](auto i) { store_units<L>(d + i * ld, r[i]); });
                    else
                        for (int i = 0; i < units - u; ++i) store_units<L>(d + i * ld, r[i]);
                }
            }
            return;
        }
    }
    for (int64_t c = 0; c < ld; ++c)
        for (int64_t u = 0; u < units; ++u)
            dst[u * ld + c] = c < width ? read_unit<L>(src + c * column, step, u, k) : typename L::Unit(0);
}

// dst[row][ld] for `rows` rows of `k` elements; ld is a multiple of W, units up to the next multiple of W are zeros.
template <class L, class S>
void pack_rows(typename L::Unit* dst, int64_t ld, const S* src, int64_t row, int64_t step, int64_t rows, int64_t k) {
    const int64_t units = (k + L::group - 1) / L::group;
    for (int64_t i = 0; i < rows; ++i) {
        const S* s = src + i * row;
        typename L::Unit* d = dst + i * ld;
        if (step == 1)
            for (int64_t u = 0; u < units; u += L::W) store_units<L>(d + u, read_along<L>(s, u, k));
        else
            for (int64_t u = 0; u < (units + L::W - 1) / L::W * L::W; ++u)
                d[u] = u < units ? read_unit<L>(s, step, u, k) : typename L::Unit(0);
    }
}

}  // namespace nk::NK_ISA
