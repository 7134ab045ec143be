// What the host calls of the resampling family: one table for each instruction set.
#pragma once

#include <cstdint>

#include "../../dtype.h"
#include "../../grid_sample.h"

namespace nk::cpu {

// What the outputs along one dim are made of: output o of the terms start[o] .. start[o + 1] - 1.
struct ResampleAxis {
    int64_t size;  // outputs
    const int64_t* start;
    const int64_t* source;  // of a term: an element of x
    const void* weight;     // of a term: double for f64, else float
};

// Rows of out, from number `begin` to `end` - 1: of planes [N, C, D, H], of channels innermost [N, D, H].
struct Resample {
    void* out;
    const void* x;
    ResampleAxis axis[3];                // D, H, W
    int64_t channels;                    // C
    int64_t out_stride[5], x_stride[5];  // N, C, D, H, W
    int64_t begin, end;
};

// Channels c0 .. c0 + count - 1 of image n: points p0 .. p1 - 1 of the grid, which are [D, H, W] as a row. Images and
// results are [C, D, H, W] for each n, and a tensor that is made is contiguous.
struct GridSample {
    GridRule rule;
    const void* x;     // the image
    const void* grid;  // its coordinates are W, H, D
    const void* g;     // of gradients
    void* out;         // the result; the gradient of the image; of the grid sums over these channels, as S [N, P, dims]
    int64_t size[3], points[3];                        // D, H, W of the image and of the grid
    int64_t x_stride[5], grid_stride[5], g_stride[5];  // N, C, D, H, W; of the grid N, D, H, W, coordinate
    int64_t n, channels, c0, count, p0, p1;
    bool few;       // so few points that the image is read only where they lie
    void* scratch;  // of grid_scratch(width, pixels) numbers of S, of planes for each of them
    int64_t width;  // count, rounded up to whole vectors; 1: the image lies in planes
};
// Points that are worked on at a time, pixels that a point is made of at most, channels of a call at most.
inline constexpr int kGridChunk = 32, kGridTaps = 16, kGridWidth = 64;
inline constexpr int64_t grid_scratch(int64_t width, int64_t pixels) { return width * (pixels + 1); }

// out[i] = the sum of rows of `count` numbers, in order; row r of `rows` begins at number r * count.
struct GridSums {
    void* out;
    const void* rows;
    int64_t count, number, begin, end;
};

struct ResamplingEntries {
    using Sampler = void (*)(const GridSample&);
    Sampler sample[kFloatTypes];
    Sampler image_gradient[kFloatTypes];
    Sampler grid_gradient[kFloatTypes];
    void (*grid_sums[kFloatTypes])(const GridSums&);
    int64_t lanes[kFloatTypes];
    void (*planes[kFloatTypes])(const Resample&);
    void (*channels[kFloatTypes])(const Resample&);  // which lie side by side in out and x
};

}  // namespace nk::cpu
