// The gradients of PReLU on the CPU.
#pragma once

#include "tensor/view.h"

namespace nk::cpu {

// Of views that were checked: w has x's shape, with stride 0 where it is expanded; gw (null: gx alone) has one element
// for each index of dim 1, or one.
void prelu_backward(const TensorView& gx, const TensorView* gw, const TensorView& g, const TensorView& x,
                    const TensorView& w);

}  // namespace nk::cpu
