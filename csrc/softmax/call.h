// softmax, log_softmax or softmin over dim >= 0 (of a tensor without dims: 0), and its gradient, of views that were
// checked: same dtype and device, shapes equal, outputs that overlap neither themselves nor, except as the very same
// view, an input.
#pragma once

#include "kernels/cpu/softmax/entries.h"
#include "tensor/view.h"

namespace nk {

namespace cpu {
void softmax(const TensorView& out, const TensorView& x, int dim, SoftmaxKind kind);
void softmax_backward(const TensorView& gx, const TensorView& g, const TensorView& y, int dim, SoftmaxKind kind);
}  // namespace cpu

namespace cuda {
void softmax(const TensorView& out, const TensorView& x, int dim, int kind);
void softmax_backward(const TensorView& gx, const TensorView& g, const TensorView& y, int dim, int kind);
}  // namespace cuda

}  // namespace nk
