// Elementwise over [rows, columns] with the sums of the columns in the same pass, on CUDA: plan, trace, launch.
//
// Parts of the rows are summed side by side, and a second kernel adds the parts' sums, which lie in scratch memory
// meanwhile. The number of parts decides the order of the sums, so the same device gives the same bits.
#pragma once

#include "cuda/elementwise.h"
#include "tensor/view.h"

namespace nk::cuda {

// What the kernel works on: [rows, columns] of an output, which may be none, and inputs.
struct ColumnProblem {
    const TensorView* views[4] = {};  // out or null, in[0], in[1], in[2]
    int64_t row_stride[4] = {}, column_stride[4] = {};
    int64_t rows = 0, columns = 0;
    int inputs = 0;
    DType type = DType::f32;
    Device device;
};

// `sums`: one for each column, or null.
void run_columns(const ElementwiseKernel& kernel, const ColumnProblem& problem, const TensorView* sums,
                 const ElementwiseArguments& arguments);

// sums[c] = the parts added in order; a launch behind the one that wrote them, on the same stream.
void finish_columns(const char* op, const TensorView& sums, const void* partial, int64_t columns, int64_t parts);

}  // namespace nk::cuda
