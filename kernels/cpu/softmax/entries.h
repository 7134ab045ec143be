// What the host calls of the softmax family: kernels over rows and columns, one table for each instruction set.
#pragma once

#include <cstdint>

#include "../../dtype.h"

namespace nk::cpu {

enum class SoftmaxKind : int { softmax, log_softmax, softmin };

// Rows of n contiguous elements; strides from row to row in elements. In the backward x is the output y.
struct SoftmaxRows {
    void* out;
    const void* x;
    const void* g;
    int64_t rows, n;
    int64_t out_stride, x_stride, g_stride;
    SoftmaxKind kind;
    bool stream;  // the output is too large for the caches: write it past them
};

// `columns` neighbouring columns of n elements each; strides along a column in elements.
struct SoftmaxColumns {
    void* out;
    const void* x;
    const void* g;
    int64_t columns, n;
    int64_t out_stride, x_stride, g_stride;
    SoftmaxKind kind;
};

struct SoftmaxEntries {
    void (*rows[kFloatTypes])(const SoftmaxRows&);
    void (*rows_backward[kFloatTypes])(const SoftmaxRows&);
    void (*columns[kFloatTypes])(const SoftmaxColumns&);
    void (*columns_backward[kFloatTypes])(const SoftmaxColumns&);
};

}  // namespace nk::cpu
