// What the host tells the kernels of this family: plain structs, passed by value. Statistics are of the compute type.
// Strides count elements; the elements of a row may be numbered in any order, the same one for every tensor.
#pragma once

#include <stdint.h>

#include "../tile/index.h"
#include "../tile/row_threads.h"

namespace nk::cuda {

// layer_norm, rms_norm.
struct NormParams {
    void* y = nullptr;
    const void *x = nullptr, *weight = nullptr, *bias = nullptr;  // no weight: ones, no bias: zeros
    void *mean = nullptr, *rstd = nullptr;                        // no mean: rms_norm
    Layout<3> outer;                                              // y, x, statistics over the rows
    Layout<4> inner;                                              // y, x, weight, bias along a row
    int64_t rows = 0, length = 0;
    double eps = 0;
    int32_t vector = 0;      // rows are whole 16-byte units in every tensor
    int32_t lanes_log2 = 0;  // threads per row of the warp kernels
};

// Their gradient in x.
struct NormBackwardParams {
    void* gx = nullptr;
    const void *g = nullptr, *x = nullptr, *weight = nullptr;
    const void *mean = nullptr, *rstd = nullptr;  // no mean: rms_norm
    Layout<4> outer;                              // gx, g, x, statistics
    Layout<4> inner;                              // gx, g, x, weight
    int64_t rows = 0, length = 0;
    int32_t vector = 0;
    int32_t lanes_log2 = 0;
};

// Their gradients in weight and bias: sums over the rows, in the way of elementwise/columns.h. A column is an element
// of the row.
struct NormColumnParams {
    void* out = nullptr;     // none: the sums are all that is wanted
    const void* in[2] = {};  // g, x
    const void *mean = nullptr, *rstd = nullptr;
    void* partial = nullptr;  // compute type, [parts, columns]
    void* sums = nullptr;     // where there is one part
    Layout<3> outer;          // g, x, statistics over the rows
    Layout<3> inner;          // sums, g, x along a row, numbered as the sums are
    int64_t sums_stride = 0;
    int64_t rows = 0, columns = 0;
    int64_t rows_per_part = 0;
    int32_t vector = 0;
    int32_t lanes_log2 = 0;

    // Of out, which is not there, and the inputs.
    template <int N>
    NK_INDEX_FN void row_at(int64_t r, int64_t (&at)[N]) const {
        int64_t in[N - 1];
        offsets<0>(outer, r, in);
        at[0] = 0;
        for (int k = 1; k < N; ++k) at[k] = in[k - 1];
    }
    template <int N>
    NK_INDEX_FN void column_at(int64_t c, int64_t (&at)[N]) const {
        offsets<0>(inner, c, at);
    }
    NK_INDEX_FN bool same_in_row(int) const { return false; }
};

}  // namespace nk::cuda
