// What the host tells the resampling kernels: a plain struct, passed by value.
#pragma once

#include "../../resampling.h"
#include "../tile/index.h"

namespace nk::cuda {

inline constexpr int kResampleThreads = 256;

struct ResampleParams {
    void* out = nullptr;
    const void* x = nullptr;  // of a gradient: g
    int64_t count = 0;        // elements of out
    int64_t size[5] = {};     // of out: N, C, D, H, W
    Divisor divisor[5];       // the same, for counts below 2^31
    int64_t out_stride[5] = {}, x_stride[5] = {};
    int32_t channels = 0;  // C runs fastest from thread to thread, else W
    ResampleDim dim[3];    // of D, H, W
};

}  // namespace nk::cuda
