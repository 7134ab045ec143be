// Sums and maxima over the lanes of a group: 2^k neighbouring lanes of a warp, or all threads of a block. The order
// is fixed by the lane numbers, so results are the same at every run. Every lane of the group gets the result.
#pragma once

#include <stdint.h>

namespace nk::cuda {

inline constexpr int kWarp = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

struct Add {
    template <class V>
    __device__ __forceinline__ V operator()(V a, V b) const {
        return a + b;
    }
};
struct Max {  // a NaN operand is passed over; where NaN must show, it shows in the sum that follows
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
    __device__ __forceinline__ double operator()(double a, double b) const { return fmax(a, b); }
};

template <class V>
__device__ __forceinline__ V shuffle_xor(V v, int mask) {
    return __shfl_xor_sync(kAllLanes, v, mask);
}

// All 32 lanes of the warp must arrive, whatever `lanes` (a power of two up to 32) is.
template <class V, class Op>
__device__ __forceinline__ V reduce_lanes(V v, int lanes, Op op) {
#pragma unroll 1
    for (int o = lanes / 2; o > 0; o /= 2) v = op(v, shuffle_xor(v, o));
    return v;
}
template <class V, class Op>
__device__ __forceinline__ V reduce_warp(V v, Op op) {
#pragma unroll
    for (int o = kWarp / 2; o > 0; o /= 2) v = op(v, shuffle_xor(v, o));
    return v;
}
// The four lanes that share a row of an mma accumulator (fragment.h).
template <class V, class Op>
__device__ __forceinline__ V reduce_quad(V v, Op op) {
    v = op(v, shuffle_xor(v, 2));
    return op(v, shuffle_xor(v, 1));
}

// blockDim.x must be a multiple of 32. `scratch` holds 32 values; the leading barrier makes it safe to reuse.
template <class V, class Op>
__device__ __forceinline__ V reduce_block(V v, V (&scratch)[kWarp], V neutral, Op op) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    v = reduce_warp(v, op);
    __syncthreads();
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    return reduce_warp(lane < warps ? scratch[lane] : neutral, op);  // each warp adds the warps' results for itself
}

}  // namespace nk::cuda
