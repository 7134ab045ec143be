// A part of register_convolution: what Python may ask of the CUDA plan.
#pragma once

#include <pybind11/pytypes.h>

namespace nk::convolution {

void register_plan(pybind11::handle m);  // needs no device

}  // namespace nk::convolution
