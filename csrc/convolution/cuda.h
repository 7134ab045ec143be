// What the CUDA side of convolutions shares.
#pragma once

#include <limits>
#include <string>

#include "context/context.h"
#include "convolution/problem.h"
#include "driver/cuda_hooks.h"
#include "driver/kernel.h"
#include "kernels/cuda/convolution/params.h"
#include "plan/arithmetic.h"
#include "tensor/check.h"

namespace nk::convolution::on_cuda {

using cuda::kSpatial;
using plan::ceil_div;

inline cuda::ImagesRef reference(const TensorView* t) {
    cuda::ImagesRef r;
    if (t == nullptr) return r;
    r.data = t->data, r.image = t->stride[0], r.channel = t->stride[1];
    for (int d = 0; d < kSpatial; ++d) r.pixel[d] = t->stride[2 + d];
    return r;
}

struct LaunchShape {
    int64_t blocks;
    unsigned threads;
    int64_t rows = 1, depth = 1;  // the grid's other dimensions
    int shared = 0;
};

// `work` says what a block does, for the trace.
template <class Params>
void launch(const char* op, const std::string& fatbin, const std::string& kernel, const LaunchShape& shape,
            Device device, const Params& params, const std::string& work) {
    if (shape.blocks == 0) return;
    if (shape.blocks > std::numeric_limits<int32_t>::max())
        fail_runtime(op, "would take ", shape.blocks, " blocks, expected at most ",
                     std::numeric_limits<int32_t>::max());
    if (trace::active()) trace::record({op, "cuda", kernel, concat(work, ", grid ", shape.blocks), ""});
    driver::Launch l{op, fatbin.c_str(), kernel.c_str()};
    l.grid[0] = static_cast<unsigned>(shape.blocks);
    l.grid[1] = static_cast<unsigned>(shape.rows), l.grid[2] = static_cast<unsigned>(shape.depth);
    l.block[0] = shape.threads;
    l.shared = static_cast<unsigned>(shape.shared);
    l.device = device;
    l.stream = current_stream(driver::titled(op), device);
    driver::launch(l, params);
}

// By the plain kernels.
void plain_forward(const Forward& p);
void plain_data_gradient(const DataGradient& p);
void plain_weight_gradient(const WeightGradient& p);

// By kernels for windows of one channel; false where these don't take it.
bool depthwise_forward(const Forward& p);
bool depthwise_data_gradient(const DataGradient& p);
bool depthwise_weight_gradient(const WeightGradient& p);

// By tiles, as products of matrices; false where these don't take it.
bool tiled_forward(const Forward& p);
bool tiled_data_gradient(const DataGradient& p);
bool tiled_weight_gradient(const WeightGradient& p);

// Tiles take only kernels whose name contains this: for tests of one of them.
extern std::string only_tiles;
// Bytes of images that are packed at a time.
inline constexpr int64_t kMostPacked = int64_t{256} << 20;
extern int64_t most_packed;

}  // namespace nk::convolution::on_cuda
