// How the CPU runs an activation: which kernel, and what it costs.
#pragma once

#include <initializer_list>

#include "cpu/elementwise.h"
#include "kernels/cpu/activation/entries.h"
#include "tensor/view.h"

namespace nk {

// Nanoseconds per element in cache; what matters is only the order of magnitude.
double cost_of(Activation a, cpu::Pass pass, DType dtype);

// One pass of an activation over tensors of one shape.
cpu::Elementwise elementwise(cpu::Pass pass, Activation a, double p0, double p1, DType dtype,
                             std::initializer_list<const TensorView*> outs,
                             std::initializer_list<const TensorView*> ins);

}  // namespace nk
