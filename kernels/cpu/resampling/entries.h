// What the host calls of the resampling family: one table for each instruction set.
#pragma once

#include <cstdint>

#include "../../dtype.h"

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

struct ResamplingEntries {
    void (*planes[kFloatTypes])(const Resample&);
    void (*channels[kFloatTypes])(const Resample&);  // which lie side by side in out and x
};

}  // namespace nk::cpu
