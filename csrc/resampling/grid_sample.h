// A checked call of grid_sample or of a gradient, in the form that its backends take.
#pragma once

#include "kernels/grid_sample.h"
#include "tensor/view.h"

namespace nk::resampling {

enum class GridWork { sample, image_gradient, grid_gradient };

struct GridProblem {
    const char* op;
    GridWork work;
    GridRule rule;
    TensorView x;     // the image; of its gradient: the shape alone
    TensorView grid;  // [N, (D,) H, W, dims]
    TensorView g;     // of gradients: the gradient of the result
    TensorView out;   // contiguous

    int64_t batch() const { return grid.shape[0]; }
    int64_t channels() const { return x.shape[1]; }
    // of D, H, W
    int64_t size(int k) const { return k == 0 && rule.dims == 2 ? 1 : x.shape[x.ndim - 3 + k]; }
    int64_t points(int k) const { return k == 0 && rule.dims == 2 ? 1 : grid.shape[grid.ndim - 4 + k]; }
    int64_t pixels() const { return size(0) * size(1) * size(2); }
    int64_t all_points() const { return points(0) * points(1) * points(2); }
    // [N, (D,) H, W, coordinate] as five dims
    void grid_strides(int64_t (&to)[5]) const {
        to[0] = grid.stride[0], to[1] = rule.dims == 2 ? 0 : grid.stride[1];
        for (int k = 0; k < 3; ++k) to[2 + k] = grid.stride[grid.ndim - 3 + k];
    }
};

void run_cpu(const GridProblem& p);
void run_cuda(const GridProblem& p);

}  // namespace nk::resampling
