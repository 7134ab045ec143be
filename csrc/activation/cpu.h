// How the CPU runs an activation: which kernel, and what it costs.
#pragma once

#include "cpu/elementwise.h"
#include "kernels/cpu/activation/entries.h"
#include "tensor/view.h"

namespace nk::cpu {

// Nanoseconds per element in cache; what matters is only the order of magnitude.
double cost_of(Activation a, Pass pass, DType dtype, bool of_output = false);

// The pass over tensors like `out`, which are still to be named.
Elementwise elementwise(Pass pass, Activation a, double p0, double p1, const TensorView& out);

}  // namespace nk::cpu
