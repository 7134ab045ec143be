// CUDA's words for a plain C++ compiler: one block at a time, its threads as fibers of one thread (see harness.cpp).
// Enough for kernels that use no inline PTX, no warp matrix instruction and no asynchronous copy.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static

struct Uint3 {
    unsigned x, y, z;
};
extern Uint3 threadIdx, blockIdx, blockDim, gridDim;

struct uint4 {
    uint32_t x, y, z, w;
};
inline uint4 make_uint4(uint32_t a, uint32_t b, uint32_t c, uint32_t d) { return {a, b, c, d}; }

template <class To, class From>
To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __uint_as_float(uint32_t u) { return same_bits<float>(u); }
inline float __int_as_float(int32_t u) { return same_bits<float>(u); }
inline uint32_t __float_as_uint(float f) { return same_bits<uint32_t>(f); }
inline double __hiloint2double(uint32_t hi, uint32_t lo) { return same_bits<double>(uint64_t{hi} << 32 | lo); }
inline int __double2loint(double d) { return static_cast<int>(same_bits<uint64_t>(d)); }
inline int __double2hiint(double d) { return static_cast<int>(same_bits<uint64_t>(d) >> 32); }

void __syncthreads();
void exchange_in_warp(const void* mine, void* theirs, int lane_xor, size_t size);
template <class V>
V __shfl_xor_sync(unsigned, V v, int lane_xor) {
    V theirs;
    exchange_in_warp(&v, &theirs, lane_xor, sizeof v);
    return theirs;
}
