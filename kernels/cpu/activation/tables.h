// How a kernel for each activation enters the table, and what the gated units know of activations.
#pragma once

#include "../elementwise/walk.h"
#include "register.h"

namespace nk::NK_ISA {

// The gates that have names of their own (GLU, SwiGLU, GeGLU, ReGLU).
template <class Op>
inline constexpr bool common_gate = false;
template <>
inline constexpr bool common_gate<math::Sigmoid> = true;
template <>
inline constexpr bool common_gate<math::Silu> = true;
template <>
inline constexpr bool common_gate<math::Gelu> = true;
template <>
inline constexpr bool common_gate<math::GeluTanh> = true;
template <>
inline constexpr bool common_gate<math::Relu> = true;

// Fills table[activation][dtype] as fill_row does.
template <template <class, class> class Kernel>
void fill(cpu::RunKernel (&table)[kActivations][kFloatTypes]) {
    for (int a = 0; a < kActivations; ++a)
        math::visit_activation(static_cast<Activation>(a), [&](auto op) { fill_row<Kernel, decltype(op)>(table[a]); });
}

}  // namespace nk::NK_ISA
