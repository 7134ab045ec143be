#include "activation/cpu.h"

#include <algorithm>

#include "cpu/table.h"

namespace nk {

using cpu::Elementwise;
using cpu::Pass;

double cost_of(Activation a, Pass pass, DType dtype) {
    const bool from_output = pass == Pass::backward_from_output || pass == Pass::backward2_from_output;
    const bool cheap = from_output || is_cheap(a);
    double cost = cheap ? 0.15 : 0.3;
    if (pass != Pass::forward) cost *= 1.5;
    if (dtype == DType::f64) cost *= 2;
    if (cpu::table().level == cpu::Level::scalar) cost *= cheap ? 4 : 30;
    return cost;
}

Elementwise elementwise(Pass pass, Activation a, double p0, double p1, DType dtype,
                        std::initializer_list<const TensorView*> outs, std::initializer_list<const TensorView*> ins) {
    const auto kernel =
        cpu::table().activation.run[static_cast<int>(pass)][static_cast<int>(a)][static_cast<int>(dtype)];
    Elementwise e{kernel,   static_cast<int>(outs.size()), static_cast<int>(ins.size()),
                  {p0, p1}, cost_of(a, pass, dtype),       {}};
    std::copy(ins.begin(), ins.end(), std::copy(outs.begin(), outs.end(), e.tensor));
    return e;
}

}  // namespace nk
