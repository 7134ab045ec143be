// cvt: conversions for which CUDA C++ has no plain spelling (sm_80 and later).
#pragma once
#include <stdint.h>

namespace nk::ptx {

// f32 to tf32, to nearest, ties away from zero: the rounding that the tensor core itself leaves out.
__device__ __forceinline__ uint32_t to_tf32(uint32_t f32_bits) {
    uint32_t r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(__uint_as_float(f32_bits)));
    return r;
}

// Two f32 to a pair of 16-bit numbers, to nearest even; `lo` lands in the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
__device__ __forceinline__ uint32_t pack_f16(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

__device__ __forceinline__ float f16_to_f32(uint16_t bits) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(bits));
    return r;
}

}  // namespace nk::ptx
