// Winograd's way for 3 x 3 windows on the CPU.
#pragma once

#include "convolution/problem.h"

namespace nk::convolution {

// Runs the convolution, or returns false where that is not possible or not worth it.
bool winograd_forward(const Forward& p);
bool winograd_data_gradient(const DataGradient& p);

}  // namespace nk::convolution
