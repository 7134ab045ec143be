// What the host tells the pooling kernels: plain structs, passed by value.
#pragma once

#include "../../pooling.h"
#include "../tile/index.h"

namespace nk::cuda {

inline constexpr int kPoolThreads = 256;

// Strides of [N, C, D, H, W], in elements.
struct PoolTensor {
    void* data = nullptr;
    int64_t stride[5] = {};
};

// The points [N, C, D, H, W] that the threads share out among them, neighbours being neighbours in memory.
struct PoolPoints {
    int64_t count = 0;
    int64_t size[5] = {};  // of N, C, D, H, W
    Divisor divisor[5];    // the same, for counts below 2^31
    int32_t channels = 0;  // C runs fastest, else W
};

struct PoolParams {
    PoolTensor out, in, gradient, result;  // out: y or gx; in: x; result: y of lp_pool
    PoolTensor indices;                    // of int32, or of int64 where `wide`
    PoolPoints points;                     // of out
    PoolDim dim[3];
    const void* samples = nullptr;  // of fractional windows: the strides of [N, C, dims] follow
    int64_t sample_stride[3] = {};
    int32_t sample_of[3] = {};  // which number a dim has
    int32_t wide = 0;
    int32_t include_pad = 0;
    int64_t divisor = 0;  // 0: what a window holds
    double norm = 0;      // of lp_pool; 0: an average
    double full = 0;      // elements of a whole window
};

struct UnpoolParams {
    PoolTensor out, in, indices;
    PoolPoints points;                     // of out, in unpool_mark of in
    unsigned long long* winner = nullptr;  // [planes, places]: 1 + the number of the last element that is put there
    int64_t places = 0;                    // of a plane of the larger image
    int64_t size[3] = {};                  // D, H, W: of the larger image in the backward, else of the smaller one
};

}  // namespace nk::cuda
