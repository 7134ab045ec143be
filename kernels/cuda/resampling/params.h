// What the host tells the resampling kernels: a plain struct, passed by value.
#pragma once

#include "../../grid_sample.h"
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

inline constexpr int kGridThreads = 256;
inline constexpr int kGridSlice = 8;  // channels that a thread takes at the same point

// Images [N, C, D, H, W] and grids [N, D, H, W, coordinate] with any strides; what is written is contiguous.
struct GridSampleParams {
    void* out = nullptr;
    const void* x = nullptr;
    const void* grid = nullptr;
    const void* g = nullptr;
    GridRule rule;
    int64_t batch = 0, channels = 0;
    int64_t size[3] = {}, points[3] = {};
    int64_t x_stride[5] = {}, grid_stride[5] = {}, g_stride[5] = {};
    int64_t tile[3] = {};  // of pixels that a block has: kGridThreads
    int64_t tiles[3] = {};
};

}  // namespace nk::cuda
