#pragma once
#include "runtime.h"
namespace nk::ptx {
inline uint32_t to_tf32(uint32_t x) { return (x & 0x7f800000) == 0x7f800000 ? x : (x + 0x1000) & 0xffffe000; }
inline uint32_t bf16_bits(float f) {
    const uint32_t x = __float_as_uint(f);
    return f != f ? 0x7fff : (x + 0x7fff + (x >> 16 & 1)) >> 16;
}
inline uint32_t f16_bits(float f) {
    _Float16 h = static_cast<_Float16>(f);
    uint16_t r;
    memcpy(&r, &h, 2);
    return r;
}
inline uint32_t pack_bf16(float lo, float hi) { return bf16_bits(lo) | bf16_bits(hi) << 16; }
inline uint32_t pack_f16(float lo, float hi) { return f16_bits(lo) | f16_bits(hi) << 16; }
inline float f16_to_f32(uint16_t bits) {
    _Float16 h;
    memcpy(&h, &bits, 2);
    return static_cast<float>(h);
}
}  // namespace nk::ptx
