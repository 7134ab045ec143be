// What the host tells the softmax kernels: a plain struct, passed by value. Pointers already point at the first element
// of the view; strides count elements, except that dim 0 of a layout in units counts per unit.
#pragma once

#include <stdint.h>

#include "../tile/index.h"

namespace nk::cuda {

inline constexpr int kSoftmaxInnerThreads = 256;

enum SoftmaxKind : int32_t { kSoftmax = 0, kLogSoftmax = 1, kSoftmin = 2 };

// Each row is the elements along the reduced dim; rows are numbered by `layout` over all other dims.
struct SoftmaxParams {
    void* out = nullptr;
    const void* in[2] = {};  // forward: x; backward: g, y
    Layout<3> layout;        // out, in[0], in[1]; the inner kernels with `vector` count units of adjacent rows
    int64_t stride[3] = {};  // along the reduced dim
    int64_t rows = 0;        // points of the layout
    int64_t length = 0;
    int32_t vector = 0;
    int32_t lanes_log2 = 0;  // row kernels: threads per row; inner kernels: threads side by side along the rows
    int32_t kind = 0;        // SoftmaxKind
};

}  // namespace nk::cuda
