// st.global of 16 bytes at once. A vector type is no promise of one: nvcc took the store of a float4 to the workspace
// apart, and each sector was written four times.
#pragma once

namespace nk::ptx {

__device__ __forceinline__ void store_16(float* to, const float (&v)[4]) {
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
                 : "memory");
}
__device__ __forceinline__ void store_16(double* to, const double (&v)[2]) {
    asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(to), "d"(v[0]), "d"(v[1]) : "memory");
}

}  // namespace nk::ptx
