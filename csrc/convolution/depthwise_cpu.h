// Convolutions with few channels in a group, on the CPU: lanes are channels (kernels/cpu/convolution/depthwise.h).
#pragma once

#include "convolution/problem.h"

namespace nk::convolution {

// False where these kernels don't serve; then nothing was written.
bool depthwise_forward(const Forward& p);
bool depthwise_data_gradient(const DataGradient& p);
bool depthwise_weight_gradient(const WeightGradient& p);

}  // namespace nk::convolution
