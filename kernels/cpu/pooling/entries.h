// What the host calls of the pooling family: one table for each instruction set.
#pragma once

#include <cstdint>

#include "../../dtype.h"

namespace nk::cpu {

// The windows along one dim, as tables.
struct PoolAxis {
    int64_t in, out;
    const int64_t *begin, *end;   // [out]: window o holds begin, begin + dilation, ..., all below end
    const int64_t *first, *last;  // [in]: element i is in windows first .. last - 1 at most
    const int64_t* count;         // [out]: what an average divides by
    int64_t dilation;
    bool regular;  // begin = o * stride - padding, but for what is cut off at the ends
    int64_t kernel, stride, padding;
};

// Planes are [D, H, W] each, one after the other; with channels innermost an image is [N, D, H, W, channels]. Results
// first: y, or in a gradient gx.
struct Pool {
    void* out;
    void* indices;  // of the maxima, within their planes; null: not wanted
    const void* x;
    const void* g;                                  // of gradients
    const void* y;                                  // of the gradient of lp_pool
    bool wide;                                      // indices of 64 bits, else 32
    bool apart;                                     // no element is in two windows
    PoolAxis axis[3];                               // D, H, W
    int64_t channels, first_channel, last_channel;  // all, and those of this call
    int64_t begin, end;  // planes; with channels innermost rows of `out`, which are N * D * H
    double divisor;      // 0: what the window holds
    double norm;         // of lp_pool
    double full;         // elements of a whole window there
    void* scratch;       // of this thread
};

// Maxima one element at a time: of windows that differ from plane to plane, and of planes so large that a float can't
// count their elements.
struct PoolEach {
    void* out;
    void* indices;
    const void* x;
    bool wide;
    PoolAxis axis[3];
    int64_t x_step, out_step;  // from element to element of a plane
};

struct PoolStarts {  // of fractional windows
    int64_t* begin;
    const void* sample;
    int64_t in, out, kernel;
};

struct PoolingEntries {
    void (*max_planes[kFloatTypes])(const Pool&);
    void (*max_channels[kFloatTypes])(const Pool&);
    void (*max_each[kFloatTypes])(const PoolEach&);
    void (*max_backward_planes[kFloatTypes])(const Pool&);
    void (*max_backward_channels[kFloatTypes])(const Pool&);
    void (*average_planes[kFloatTypes])(const Pool&);
    void (*average_channels[kFloatTypes])(const Pool&);
    void (*average_backward_planes[kFloatTypes])(const Pool&);
    void (*average_backward_channels[kFloatTypes])(const Pool&);
    void (*starts[kFloatTypes])(const PoolStarts&);
};

}  // namespace nk::cpu
