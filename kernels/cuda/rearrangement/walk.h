// One thread for each element that is written, in the order of its memory.
#pragma once

#include "../tile/element.h"
#include "../tile/kernel.h"
#include "params.h"

namespace nk::cuda {

template <class F>
__device__ __forceinline__ void each_element(int64_t count, F f) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * kRearrangementThreads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kRearrangementThreads + threadIdx.x; i < count; i += step) f(i);
}

// rest = rest / size; returns the remainder.
__device__ __forceinline__ int64_t take(int64_t& rest, int64_t size, int32_t wide) {
    if (wide) {
        const int64_t next = rest / size, index = rest - next * size;
        rest = next;
        return index;
    }
    const uint32_t r = static_cast<uint32_t>(rest), s = static_cast<uint32_t>(size), next = r / s;
    rest = next;
    return r - next * s;
}

}  // namespace nk::cuda
