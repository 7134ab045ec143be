// How a kernel for each activation enters the table.
#pragma once

#include "../elementwise/walk.h"
#include "register.h"

namespace nk::NK_ISA {

// Fills table[activation][dtype] as fill_row does.
template <template <class, class> class Kernel>
void fill(cpu::RunKernel (&table)[kActivations][kFloatTypes]) {
    for (int a = 0; a < kActivations; ++a)
        math::visit_activation(static_cast<Activation>(a), [&](auto op) { fill_row<Kernel, decltype(op)>(table[a]); });
}

// The same for the activations of gated units.
template <template <class, class> class Kernel>
void fill_gates(cpu::RunKernel (&table)[kActivations][kFloatTypes]) {
    for (int a = 0; a < kActivations; ++a)
        math::visit_gate(static_cast<Activation>(a), [&](auto op) { fill_row<Kernel, decltype(op)>(table[a]); });
}

// The same for the derivatives that are told by the output.
template <template <class, class> class Kernel>
void fill_from_output(cpu::RunKernel (&table)[kActivations][kFloatTypes]) {
    for (int a = 0; a < kActivations; ++a)
        math::visit_told_by_output(static_cast<Activation>(a),
                                   [&](auto op) { fill_row<Kernel, decltype(op)>(table[a]); });
}

}  // namespace nk::NK_ISA
