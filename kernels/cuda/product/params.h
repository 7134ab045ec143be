// What the kernels of every product are told of operands and results: plain data, written by the host.
#pragma once

#include <stdint.h>

namespace nk::cuda {

inline constexpr int kBatchDims = 4;  // batch dimensions that a kernel decodes; the host loops over further ones

// A matrix of every batch entry; steps are in elements and may be 0 or negative.
struct MatrixRef {
    void* data = nullptr;
    int64_t row = 0, column = 0;
    int64_t batch[kBatchDims] = {};
};

// What becomes of the sums [m, n] of a product: activation(alpha * sum + bias) + beta * residual.
struct EpilogueParams {
    int64_t m = 0, n = 0;
    const void* bias = nullptr;             // may be null
    int64_t bias_row = 0, bias_column = 0;  // steps of the bias along m and n; one of them is 0
    void* workspace = nullptr;              // partial sums [split][batch][m][workspace_pitch], with splits > 1
    int64_t workspace_pitch = 0;            // accumulators per row, a multiple of 4
    int64_t batches = 0;                    // entries of this launch
    double alpha = 1, beta = 0, p0 = 0, p1 = 0;
    int32_t activation = 0;
    int32_t splits = 1;                                                       // blocks along k
    int32_t has_residual = 0, has_preact = 0;                                 // whether there are such tensors
    int32_t wide_out = 0, wide_residual = 0, wide_preact = 0, wide_bias = 0;  // whether 4 columns (f64: 2) go at once
};

}  // namespace nk::cuda
