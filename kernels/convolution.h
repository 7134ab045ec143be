// What host and kernels agree on about convolutions.
#pragma once

namespace nk::convolution {

inline constexpr int kSpatial = 3;  // depth, height, width

}  // namespace nk::convolution
