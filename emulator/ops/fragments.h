// The parts of matrices that the lanes of a warp hold in registers, and their way to and from arrays of doubles. With
// g = lane / 4, t = lane % 4 and P elements to a register:
//   A  register i holds row g + 8 (i % 2), k = 4 P (i / 2) + P t + e     (of 8 rows: row g, k = 4 P i + P t + e)
//   B  register i holds k = 4 P i + P t + e, column g
//   C  register i holds row g + 8 (i / 2 % 2), column 8 (i / 4) + 2 t + i % 2; as f16: row g + 8 (i % 2), columns
//      8 (i / 2) + 2 t + e     (of 8 rows: two registers)
// Registers are pointers to 32 words. A becomes [row][k], B [k][column], and C [column / 8][row][column % 8] with 16
// rows.
#pragma once

#include "elements.h"
#include "lanes.h"

namespace emu::ops {

// For sums in single precision, four lanes at a time: they hold eight columns of a row in two registers.
template <bool Store>
void single_accumulators(uint32_t* const* registers, uint32_t count, double* sum) {
    for (uint32_t r = 0; r < count; r += 2) {
        auto *x = reinterpret_cast<float*>(registers[r]), *y = reinterpret_cast<float*>(registers[r + 1]);
        double* at = sum + r / 2 * 64;
        for (uint32_t l = 0; l < kLanes; l += 4, at += 8) {
            if constexpr (Store) {
                const __m256d even = _mm256_loadu_pd(at), odd = _mm256_loadu_pd(at + 4);
                const __m128 low = _mm256_cvtpd_ps(even), high = _mm256_cvtpd_ps(odd);
                const auto put = [](float* to, __m128 v) {
                    const __m128 nan = _mm_castsi128_ps(_mm_set1_epi32(static_cast<int>(kNanF32)));
                    _mm_store_ps(to, _mm_blendv_ps(v, nan, _mm_cmpunord_ps(v, v)));
                };
                put(x + l, _mm_shuffle_ps(low, high, 0x88)), put(y + l, _mm_shuffle_ps(low, high, 0xdd));
            } else {
                const __m128 a = _mm_load_ps(x + l), b = _mm_load_ps(y + l);
                _mm256_storeu_pd(at, _mm256_cvtps_pd(_mm_unpacklo_ps(a, b)));
                _mm256_storeu_pd(at + 4, _mm256_cvtps_pd(_mm_unpackhi_ps(a, b)));
            }
        }
    }
}

// Sets sum[n / 8][16][8] from the registers of D that a warp holds, or the other way round.
template <bool Store>
void accumulators(uint32_t* const* registers, uint32_t count, Sum total, double* sum) {
    if (total == Sum::f32) return single_accumulators<Store>(registers, count, sum);
    for (uint32_t r = 0; r < count; ++r) {
        uint32_t* x = registers[r];
        const bool pair = total == Sum::f16;
        double* at = sum + (pair ? r : r / 2) * 64 + (pair ? 0 : r % 2);
        for (uint32_t l = 0; l < kLanes; ++l) {
            double* s = at + l / 4 * 8 + l % 4 * 2;
            switch (total) {
                case Sum::f16:
                    if constexpr (Store) {
                        x[l] = pack_half(s[0]) | uint32_t{pack_half(s[1])} << 16;
                    } else {
                        s[0] = from_half(static_cast<uint16_t>(x[l]));
                        s[1] = from_half(static_cast<uint16_t>(x[l] >> 16));
                    }
                    break;
                default:
                    if constexpr (Store)
                        x[l] = pack_integer(*s, total == Sum::s32_saturated);
                    else
                        *s = static_cast<int32_t>(x[l]);
            }
        }
    }
}

// `halves`: groups of eight rows.
inline void read_left(uint32_t* const* registers, uint32_t count, uint32_t halves, Element e, double* to) {
    const uint32_t per = 32 / bits_of(e), k = count / halves * 4 * per;
    double values[32];
    for (uint32_t r = 0; r < count; ++r) {
        const uint32_t* x = registers[r];
        for (uint32_t l = 0; l < kLanes; ++l) {
            unpack(e, x + l, per, values);
            double* at = to + (l / 4 + 8 * (r % halves)) * k + 4 * per * (r / halves) + per * (l % 4);
            for (uint32_t j = 0; j < per; ++j) at[j] = values[j];
        }
    }
}

inline void read_right(uint32_t* const* registers, uint32_t count, Element e, double* to) {
    const uint32_t per = 32 / bits_of(e);
    double values[32];
    for (uint32_t r = 0; r < count; ++r) {
        const uint32_t* x = registers[r];
        for (uint32_t l = 0; l < kLanes; ++l) {
            unpack(e, x + l, per, values);
            double* at = to + (4 * per * r + per * (l % 4)) * 8 + l / 4;
            for (uint32_t j = 0; j < per; ++j) at[8 * j] = values[j];
        }
    }
}

}  // namespace emu::ops
