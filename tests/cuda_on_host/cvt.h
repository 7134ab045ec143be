// Stands in for kernels/cuda/ptx/cvt.h, whose inline PTX a plain C++ compiler can't take.
#pragma once

#include "cuda.h"

namespace nk::ptx {

inline uint32_t f16_bits(float x) { return same_bits<uint16_t>(static_cast<_Float16>(x)); }
inline uint32_t bf16_bits(float x) {
    uint32_t u = same_bits<uint32_t>(x);
    if (x != x) return 0x7fff;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
inline uint32_t pack_bf16(float lo, float hi) { return bf16_bits(lo) | bf16_bits(hi) << 16; }
inline uint32_t pack_f16(float lo, float hi) { return f16_bits(lo) | f16_bits(hi) << 16; }
inline float f16_to_f32(uint16_t bits) { return same_bits<_Float16>(bits); }

}  // namespace nk::ptx
