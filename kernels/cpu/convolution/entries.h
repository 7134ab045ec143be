// What the host calls of the convolution family, one table for each instruction set.
#pragma once

#include "depthwise.h"

namespace nk::cpu {

struct ConvolutionEntries {
    DepthwiseEntries depthwise;
};

}  // namespace nk::cpu
