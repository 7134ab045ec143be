// From a thread's number to its points, and the windows there.
#pragma once

#include "../tile/element.h"
#include "params.h"

namespace nk::cuda {

__device__ __forceinline__ int64_t pool_divide(int64_t n, const PoolPoints& p, int d) {
    return p.count >> 31 == 0 ? divide(static_cast<uint32_t>(n), p.divisor[d]) : n / p.size[d];
}

// [n, c, d, h, w] of a point.
__device__ __forceinline__ void coordinates(const PoolPoints& p, int64_t index, int64_t (&at)[5]) {
    const auto take = [&](int d) {
        const int64_t rest = pool_divide(index, p, d);
        at[d] = index - rest * p.size[d];
        index = rest;
    };
    if (p.channels) take(1);
    take(4);
    take(3);
    take(2);
    if (!p.channels) take(1);
    at[0] = index;
}

__device__ __forceinline__ int64_t offset_of(const PoolTensor& t, const int64_t (&at)[5]) {
    int64_t sum = 0;
#pragma unroll
    for (int d = 0; d < 5; ++d) sum += at[d] * t.stride[d];
    return sum;
}
__device__ __forceinline__ int64_t offset_of(const PoolTensor& t, const int64_t (&at)[5], int64_t d, int64_t h,
                                             int64_t w) {
    return at[0] * t.stride[0] + at[1] * t.stride[1] + d * t.stride[2] + h * t.stride[3] + w * t.stride[4];
}

__device__ __forceinline__ int64_t place_at(const PoolParams& p, int64_t offset) {
    return p.wide ? static_cast<const int64_t*>(p.indices.data)[offset]
                  : static_cast<const int32_t*>(p.indices.data)[offset];
}

// f(point) for each point of this thread.
template <class F>
__device__ __forceinline__ void each_point(const PoolPoints& p, F f) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * kPoolThreads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kPoolThreads + threadIdx.x; i < p.count; i += step) {
        int64_t at[5];
        coordinates(p, i, at);
        f(at);
    }
}

// The windows of a plane, fractional ones among them.
template <DType T>
struct PlaneWindows {
    using C = compute_t<T>;
    const PoolParams& p;
    C sample[3];

    __device__ __forceinline__ PlaneWindows(const PoolParams& params, const int64_t (&at)[5]) : p(params) {
        if (p.samples == nullptr) return;
#pragma unroll
        for (int k = 0; k < 3; ++k)
            sample[k] = load<T>(p.samples, at[0] * p.sample_stride[0] + at[1] * p.sample_stride[1] +
                                               p.sample_of[k] * p.sample_stride[2]);
    }
    __device__ __forceinline__ int64_t start(int k, int64_t o) const {
        return fractional_start(p.dim[k], o, sample[k], [](C v) { return to_compute<T>(to_memory<T>(v)); });
    }
    __device__ __forceinline__ PoolRange window(int k, int64_t o) const {
        if (p.dim[k].windows != Windows::fractional) return pool_window(p.dim[k], o);
        const int64_t begin = start(k, o);
        return {begin, begin + p.dim[k].kernel};
    }
};

}  // namespace nk::cuda
