// What the host calls of the normalization family: kernels over contiguous rows, one table for each instruction set.
#pragma once

#include <cstdint>

#include "../../dtype.h"

namespace nk::cpu {

// Rows of n contiguous elements; strides from row to row in elements. Statistics are float, or double for double rows,
// one for each row, side by side.
struct NormRows {
    void* y;
    const void *x, *weight, *bias;  // weight, bias: n elements, or null for ones and zeros
    void *mean, *rstd;              // no mean in RMSNorm
    int64_t rows, n;
    int64_t y_stride, x_stride;
    double eps;
    bool stream;  // the output is too large for the caches: write it past them
};

// The gradients of some rows. gw and gb are sums over these rows, n numbers of the statistics' type in an order that
// only NormSums knows; `fresh`: they are unset, else added to.
struct NormRowsBackward {
    void* gx;  // null: not wanted
    const void *g, *x, *weight;
    const void *mean, *rstd;
    void *gw, *gb;  // null: not wanted
    int64_t rows, n;
    int64_t gx_stride, g_stride, x_stride;
    bool fresh;
    bool stream;  // gx is written past the caches: its rows begin on lines
};

// out[i] = sum of part[0][i], part[1][i], ..., added in this order; out has the rows' type.
struct NormSums {
    void* out;
    const void* part;
    int64_t parts, n;
    int64_t stride;  // from part to part
};

struct NormalizationEntries {
    void (*layer_norm[kFloatTypes])(const NormRows&);
    void (*rms_norm[kFloatTypes])(const NormRows&);
    void (*layer_norm_backward[kFloatTypes])(const NormRowsBackward&);
    void (*rms_norm_backward[kFloatTypes])(const NormRowsBackward&);
    void (*add_parts[kFloatTypes])(const NormSums&);
};

}  // namespace nk::cpu
