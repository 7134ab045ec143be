// Approximations of the special function unit: one instruction each, for numbers that are rounded to 16 bits later or
// whose errors average out (sm_80 and later).
#pragma once

namespace nk::ptx {

// 2^x within 2 ulp; results below 2^-126 are 0, and so is that of -infinity.
__device__ __forceinline__ float ex2_approx(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// 1 / x within 1 ulp; x below 2^-126 counts as 0, and so do results.
__device__ __forceinline__ float rcp_approx(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

}  // namespace nk::ptx
