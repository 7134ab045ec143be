#include "activation/cuda.h"

namespace nk::cuda {

void unary(const TensorView& out, const TensorView& x, const ElementwiseArguments& act) {
    elementwise({"unary", "activation_unary", "activation_unary"}, 1, act, out, x);
}

void unary_backward(const TensorView& out, const TensorView& g, const TensorView& x, const ElementwiseArguments& act) {
    elementwise({"unary_backward", "activation_unary", "activation_unary_backward"}, 1, act, out, g, x);
}

void unary_backward2(const TensorView& out, const TensorView& gg, const TensorView& g, const TensorView& x,
                     const ElementwiseArguments& act) {
    elementwise({"unary_backward2", "activation_unary", "activation_unary_backward2"}, 1, act, out, gg, g, x);
}

void unary_backward_from_output(const TensorView& out, const TensorView& g, const TensorView& y,
                                const ElementwiseArguments& act) {
    elementwise({"unary_backward", "activation_unary", "activation_unary_backward_from_output"}, 1, act, out, g, y);
}

void unary_backward2_from_output(const TensorView& out, const TensorView& gg, const TensorView& g, const TensorView& y,
                                 const ElementwiseArguments& act) {
    elementwise({"unary_backward2", "activation_unary", "activation_unary_backward2_from_output"}, 1, act, out, gg, g,
                y);
}

void gated(const TensorView& out, const TensorView& a, const TensorView& b, const ElementwiseArguments& act) {
    elementwise({"gated", "activation_gated", "activation_gated"}, 1, act, out, a, b);
}

void gated_backward(const TensorView& ga, const TensorView& gb, const TensorView& g, const TensorView& a,
                    const TensorView& b, const ElementwiseArguments& act) {
    elementwise({"gated_backward", "activation_gated", "activation_gated_backward"}, 2, act, ga, gb, g, a, b);
}

}  // namespace nk::cuda
