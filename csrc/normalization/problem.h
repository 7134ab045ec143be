// layer_norm and rms_norm as checked arguments: what the CPU and CUDA launchers take.
#pragma once

#include "tensor/view.h"

namespace nk::normalization {

inline constexpr const char* kNames[2][2] = {{"layer_norm", "layer_norm_backward"}, {"rms_norm", "rms_norm_backward"}};

struct Forward {
    bool rms;
    int row_dims;  // the last so many dims are normalized together
    const TensorView &y, &x;
    const TensorView *weight, *bias;  // null: ones, zeros
    const TensorView* mean;           // null in rms_norm
    const TensorView& rstd;
    double eps;

    const char* op() const { return kNames[rms][0]; }
};

struct Backward {
    bool rms;
    int row_dims;
    const TensorView *gx, *gw, *gb;  // null: not wanted
    const TensorView &g, &x;
    const TensorView *weight, *mean;
    const TensorView& rstd;

    const char* op() const { return kNames[rms][1]; }
};

void forward_cpu(const Forward& p);
void backward_cpu(const Backward& p);
void forward_cuda(const Forward& p);
void backward_cuda(const Backward& p);

}  // namespace nk::normalization
