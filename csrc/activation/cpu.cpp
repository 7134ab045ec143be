#include "activation/cpu.h"

#include "cpu/table.h"

namespace nk::cpu {

double cost_of(Activation a, Pass pass, DType dtype, bool of_output) {
    bool cheap = of_output;
    switch (a) {
        case Activation::identity:
        case Activation::relu:
        case Activation::relu6:
        case Activation::leaky_relu:
        case Activation::hardsigmoid:
        case Activation::hardswish:
        case Activation::hardtanh:
        case Activation::hardshrink:
        case Activation::softshrink:
        case Activation::threshold:
        case Activation::squared_relu:
            cheap = true;
            break;
        default:
            break;
    }
    double cost = cheap ? 0.15 : 0.3;
    if (pass != Pass::forward) cost *= 1.5;
    if (dtype == DType::f64) cost *= 2;
    if (table().level == Level::scalar) cost *= cheap ? 4 : 30;
    return cost;
}

Elementwise elementwise(Pass pass, Activation a, double p0, double p1, const TensorView& out) {
    const Table& t = table();
    const auto kernel = t.activation.run[static_cast<int>(pass)][static_cast<int>(a)][static_cast<int>(out.dtype)];
    const bool of_output = p0 != 0 && pass != Pass::forward && (a == Activation::sigmoid || a == Activation::tanh);
    return {kernel, 1, 0, {p0, p1}, cost_of(a, pass, out.dtype, of_output), {}};
}

}  // namespace nk::cpu
