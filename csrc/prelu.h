// What PReLU's forward and backward share, and its backward as Python calls it.
#pragma once

#include <pybind11/pybind11.h>

#include "tensor.h"

namespace nk {

// A weight of one value, or one for each index of x's dim 1, as a view of x's shape.
void as_channels(const char* op, TensorView& w, const TensorView& x);

// csrc/prelu_backward.cpp
void prelu_backward(pybind11::handle gx, pybind11::handle gw, pybind11::handle g, pybind11::handle x,
                    pybind11::handle w, pybind11::handle workspace);
pybind11::object prelu_gradients(pybind11::handle out, pybind11::handle g, pybind11::handle x, pybind11::handle w);

}  // namespace nk
