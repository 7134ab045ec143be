// Floating-point numbers of the device: conversions between formats, NaN, flushing, saturation, rounding modes.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>

#include "../decode/code.h"

namespace emu {

// Single precision has one NaN; halves have one too. Doubles keep theirs.
inline constexpr uint32_t kNanF32 = 0x7fffffff;
inline constexpr uint16_t kNanHalf = 0x7fff;

[[gnu::always_inline]] inline float canonical(float x) { return x == x ? x : std::bit_cast<float>(kNanF32); }
[[gnu::always_inline]] inline double canonical(double x) { return x; }

inline float from_bfloat(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

inline uint16_t to_bfloat(float x, int rounding = 0) {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    if (x != x) return kNanHalf;
    const uint32_t low = u & 0xffff, high = u >> 16;
    const bool negative = u >> 31;
    uint32_t up = 0;
    if (rounding == 0) up = low > 0x8000 || (low == 0x8000 && (high & 1));
    if (rounding == 2) up = negative && low != 0;
    if (rounding == 3) up = !negative && low != 0;
    return static_cast<uint16_t>(high + up);  // a carry into the exponent gives infinity, as it should
}

inline float from_half(uint16_t bits) { return _cvtsh_ss(bits); }

inline uint16_t to_half(float x, int rounding = 0) {
    if (x != x) return kNanHalf;
    switch (rounding) {
        case 1:
            return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_ZERO));
        case 2:
            return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEG_INF));
        case 3:
            return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_POS_INF));
        default:
            return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
    }
}

// To single precision by rounding to odd: a second rounding to a narrower format is then as good as one.
inline float to_odd(double x) {
    const auto nearest = static_cast<float>(x);
    if (x != x || static_cast<double>(nearest) == x) return nearest;
    uint32_t u = std::bit_cast<uint32_t>(nearest);
    // to zero first
    if (std::fabs(static_cast<double>(nearest)) > std::fabs(x)) --u;
    return std::bit_cast<float>(u | 1);
}

// x + y in double precision, rounded to odd.
inline double sum_to_odd(double x, double y) {
    const double s = x + y;
    if (!std::isfinite(s)) return s;
    const double t = s - x;
    const double error = (x - (s - t)) + (y - t);
    uint64_t u = std::bit_cast<uint64_t>(s);
    if (error == 0 || (u & 1)) return s;
    return std::bit_cast<double>((error > 0) == (s > 0) ? u + 1 : u - 1);
}

// f32 to tf32: ties away from zero (.rna) or to even (.rn); the low 13 bits are zero.
inline uint32_t to_tf32(float x, bool away) {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    if ((u & 0x7f800000) == 0x7f800000) return x != x ? kNanF32 : u;
    return (u + (away ? 0x1000 : 0xfff + (u >> 13 & 1))) & 0xffffe000;
}

inline float flush(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.f, x) : x; }
inline double flush(double x) { return x; }

// To [0, 1]; NaN becomes 0.
template <class T>
T saturate(T x) {
    return x > T(0) ? (x < T(1) ? x : T(1)) : T(0);
}

// The rounding mode of an instruction for as long as the guard lives. Loads and stores of registers stay inside,
// because the calls may change memory as far as the compiler can tell.
class Rounding {
  public:
    explicit Rounding(uint16_t flags) : mode_(flags & kRoundMask) {
        constexpr int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
        if (mode_ != 0) std::fesetround(modes[mode_]);
    }
    ~Rounding() {
        if (mode_ != 0) std::fesetround(FE_TONEAREST);
    }
    Rounding(const Rounding&) = delete;
    Rounding& operator=(const Rounding&) = delete;

  private:
    int mode_;
};

}  // namespace emu
