// A checked interpolation, in the form that its backends take: [N, C, D, H, W], with sizes of 1 for dims that are not
// there.
#pragma once

#include "kernels/resampling.h"
#include "tensor/view.h"

namespace nk::resampling {

// Of [N, C, (D,) (H,) W]: elements of all five dims.
struct Strides {
    int64_t of[5];

    explicit Strides(const TensorView& t) : of{t.stride[0], t.stride[1], 0, 0, 0} {
        for (int d = 2; d < t.ndim; ++d) of[5 - t.ndim + d] = t.stride[d];
    }
};

struct Problem {
    const char* op;
    TensorView out, x;   // of a gradient: gx and g
    bool transposed;     // a gradient
    ResampleDim dim[3];  // of D, H and W; from the input to the output, in a gradient as well

    int64_t size(int k) const { return transposed ? dim[k].in : dim[k].out; }  // of out
};

void run_cpu(const Problem& p);
void run_cuda(const Problem& p);

}  // namespace nk::resampling
