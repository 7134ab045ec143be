// What a matmul kernel is told: plain data, written by csrc/matmul/cuda.cpp and read by every kernel here.
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

// out = activation(alpha * A B + bias) + beta * residual, with A [m, k], B [k, n].
struct MatmulParams {
    MatrixRef a, b, out;
    MatrixRef residual, preact;             // may have no data
    const void* bias = nullptr;             // may be null
    int64_t bias_row = 0, bias_column = 0;  // steps of the bias along m and n; one of them is 0
    void* workspace = nullptr;              // partial sums [split][batch][m][workspace_pitch], with splits > 1
    int64_t m = 0, n = 0, k = 0;
    int64_t k_per_split = 0;                        // a multiple of the tile's k; k itself when there is one split
    int64_t workspace_pitch = 0;                    // accumulators per row, a multiple of 4
    int64_t batch_begin = 0;                        // blockIdx.z counts from here
    int64_t batches = 0;                            // entries of this launch
    int64_t batch_size[kBatchDims] = {1, 1, 1, 1};  // outermost first
    double alpha = 1, beta = 0, p0 = 0, p1 = 0;
    int32_t tiles_m = 0, tiles_n = 0;
    int32_t group = 1;   // tile rows that are walked together, so that their share of B stays in L2
    int32_t splits = 1;  // blocks along k
    int32_t activation = 0;
    int32_t a_access = 0, b_access = 0;  // bytes that the loads of A and B may take at once, see tile/copy.h
    int32_t wide_out = 0, wide_residual = 0, wide_preact = 0, wide_bias = 0;  // whether 4 columns (f64: 2) go at once
};

}  // namespace nk::cuda
