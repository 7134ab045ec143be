// The CUDA plan of a convolution: its products as those of matrices, the tiles and how k is split. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convolution/problem.h"
#include "plan/gpu.h"

namespace nk::plan {

// One dim of a data gradient's phase: pixels first + j * stride see taps tap + u * tap_step, at begin + j - u * step.
struct Phase {
    int64_t first = 0, pixels = 0;
    int64_t tap = 0, taps = 0, tap_step = 1;
    int64_t begin = 0, step = 1;
};

// Every phase of one dim that has pixels, those without taps among them: there the gradient is zero.
std::vector<Phase> data_gradient_phases(int64_t pixels, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad);

// A compiled tile of kernels/cuda/convolution; tests compare them with the fatbins.
struct ConvolutionTile {
    DType dtype;
    const char* element;
    int m, n, k;
    int threads, stages;
    int shared;
    int blocks;  // per multiprocessor, as far as registers go
    int unit;    // bytes of channels that are moved at once
    bool tf32;
};

// The products of one group: [m, k] times [k, n], `groups` of them.
struct ConvolutionShape {
    int64_t m = 0, n = 0, k = 0, groups = 1;
    DType dtype = DType::f32;
    bool tf32 = false;
    bool mapped = false;    // with a padding mode, for which only the smallest tile is compiled
    std::string only = {};  // "128x128": that tile
};

struct ConvolutionPlan {
    const ConvolutionTile* tile = nullptr;
    int tiles_m = 0, tiles_n = 0, group = 1, splits = 1;
    int64_t k_per_split = 0;
    int64_t workspace_pitch = 0;

    std::string describe() const;
};

const std::vector<ConvolutionTile>& convolution_tiles();

// `chunks`: how many launches share k, for which partial sums are kept.
ConvolutionPlan plan_convolution(const ConvolutionShape& shape, const Gpu& gpu, int64_t chunks = 1);

// Elements of a unit; 0 where no tile has the dtype.
int convolution_unit(DType dtype, bool tf32);

}  // namespace nk::plan
