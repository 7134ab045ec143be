// What a matmul kernel is told: plain data, written by csrc/matmul/cuda.cpp and read by every kernel here.
#pragma once

#include "../product/params.h"

namespace nk::cuda {

// out = activation(alpha * A B + bias) + beta * residual, with A [m, k], B [k, n].
struct MatmulParams : EpilogueParams {
    MatrixRef a, b, out;
    MatrixRef residual, preact;  // may have no data
    int64_t k = 0;
    int64_t k_per_split = 0;                        // a multiple of the tile's k; k itself when there is one split
    int64_t batch_begin = 0;                        // blockIdx.z counts from here
    int64_t batch_size[kBatchDims] = {1, 1, 1, 1};  // outermost first
    int32_t tiles_m = 0, tiles_n = 0;
    int32_t group = 1;                   // tile rows that are walked together, so that their share of B stays in L2
    int32_t a_access = 0, b_access = 0;  // bytes that the loads of A and B may take at once, see tile/walk.h
};

}  // namespace nk::cuda
