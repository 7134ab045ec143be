// Activations on CUDA: plan, trace, launch. The views have been checked by the caller: same dtype and device, shapes
// equal, outputs that overlap neither themselves nor, except as the very same view in unary ops, an input.
#pragma once

#include "cuda/elementwise.h"
#include "kernels/activation.h"
#include "tensor/view.h"

namespace nk::cuda {

inline ElementwiseArguments arguments(Activation activation, double p0, double p1) {
    return {static_cast<int>(activation), {p0, p1}};
}

void unary(const TensorView& out, const TensorView& x, const ElementwiseArguments& act);
void unary_backward(const TensorView& out, const TensorView& g, const TensorView& x, const ElementwiseArguments& act);
void unary_backward2(const TensorView& out, const TensorView& gg, const TensorView& g, const TensorView& x,
                     const ElementwiseArguments& act);
// derivatives told by the output y
void unary_backward_from_output(const TensorView& out, const TensorView& g, const TensorView& y,
                                const ElementwiseArguments& act);
void unary_backward2_from_output(const TensorView& out, const TensorView& gg, const TensorView& g, const TensorView& y,
                                 const ElementwiseArguments& act);
void gated(const TensorView& out, const TensorView& a, const TensorView& b, const ElementwiseArguments& act);
void gated_backward(const TensorView& ga, const TensorView& gb, const TensorView& g, const TensorView& a,
                    const TensorView& b, const ElementwiseArguments& act);

// w has x's shape, with stride 0 where it is expanded.
void prelu(const TensorView& out, const TensorView& x, const TensorView& w);
// gw (null: gx alone) has x.size(1) elements, or one for the whole tensor; w must then be constant over a channel.
void prelu_backward(const TensorView& gx, const TensorView* gw, const TensorView& g, const TensorView& x,
                    const TensorView& w);

}  // namespace nk::cuda
