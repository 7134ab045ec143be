// The activation family on CUDA: plan, trace, launch. The views have been checked by the caller (csrc/activation.cpp,
// csrc/softmax.cpp): same dtype and device, shapes equal, outputs that overlap neither themselves nor, except as the
// very same view in unary ops, an input. Launches go to torch's current stream and do not wait.
//
// Workspace: the two ops that sum over rows sum parts of them side by side and keep the parts' sums in scratch memory.
// Without a `workspace` they take it from the framework's allocator (new_tensor), as much as lets them use the whole
// device. A caller may bring its own, 16-byte aligned on the same device, any dtype and shape: with fewer bytes than
// ..._workspace says there are fewer parts, down to one, which is slower and equally right. The number of parts
// decides the order of the sums, so the same device and workspace give the same bits.
#pragma once

#include <cstdint>

#include "../kernels/activation.h"
#include "tensor.h"

namespace nk::cuda {

struct Act {
    Activation id;
    double p0, p1;
};

void unary(const TensorView& out, const TensorView& x, Act act);
void unary_backward(const TensorView& out, const TensorView& g, const TensorView& x, Act act);
void unary_backward2(const TensorView& out, const TensorView& gg, const TensorView& g, const TensorView& x, Act act);
void unary_backward_from_output(const TensorView& out, const TensorView& g, const TensorView& y, Act act);
void unary_backward2_from_output(const TensorView& out, const TensorView& gg, const TensorView& g, const TensorView& y,
                                 Act act);
void gated(const TensorView& out, const TensorView& a, const TensorView& b, Act act);
void gated_backward(const TensorView& ga, const TensorView& gb, const TensorView& g, const TensorView& a,
                    const TensorView& b, Act act);

// w has x's shape, with stride 0 where it is expanded.
void prelu(const TensorView& out, const TensorView& x, const TensorView& w);
// gw (null: gx alone) has x.size(1) elements, or one for the whole tensor; w must then be constant over a channel.
void prelu_backward(const TensorView& gx, const TensorView* gw, const TensorView& g, const TensorView& x,
                    const TensorView& w);

// 2-D; gz null: sums only; gb null: gz only; z null: the activation is the identity.
void activation_bias_backward(const TensorView* gz, const TensorView* gb, const TensorView& g, const TensorView* z,
                              Act act);

// kind: 0 softmax, 1 log_softmax, 2 softmin; dim >= 0 (of a tensor without dims: 0).
void softmax(const TensorView& out, const TensorView& x, int dim, int kind);
void softmax_backward(const TensorView& gx, const TensorView& g, const TensorView& y, int dim, int kind);

}  // namespace nk::cuda
