// softmax, log_softmax or softmin over dim >= 0 (of a tensor without dims: 0), and its gradient, of views that were
// checked: same dtype and device, shapes equal, outputs that overlap no input but as the very same view.
#pragma once

#include <initializer_list>

#include "kernels/cpu/softmax/entries.h"
#include "tensor/view.h"

namespace nk {

inline constexpr const char* kSoftmaxNames[] = {"softmax", "log_softmax", "softmin"};

namespace cpu {
// tensors: out, x; of the gradient: gx, y, g.
void softmax(const char* op, std::initializer_list<const TensorView*> tensors, int dim, SoftmaxKind kind);
}  // namespace cpu

namespace cuda {
void softmax(const TensorView& out, const TensorView& x, int dim, cpu::SoftmaxKind kind);
void softmax_backward(const TensorView& gx, const TensorView& g, const TensorView& y, int dim, cpu::SoftmaxKind kind);
}  // namespace cuda

}  // namespace nk
