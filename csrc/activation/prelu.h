// What PReLU's forward and backward share, and its backward.
#pragma once

#include "call/call.h"

namespace nk {

// A weight of one value, or one for each index of x's dim 1, as a view of x's shape.
void as_channels(const char* op, TensorView& w, const TensorView& x);

// csrc/activation/prelu_cpu.cpp
py::object prelu_backward(const Call& call, Input& g, Input& x, Input& w, Wants wants);
py::object rrelu_backward(const Call& call, Input& g, Input& x, Input& noise, Wants wants);

}  // namespace nk
