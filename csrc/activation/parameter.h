// An activation as an argument of a launcher: by its name.
#pragma once

#include <cstring>

#include "call/call.h"
#include "kernels/activation.h"

namespace nk {

using ActivationName = NameOf<Activation, kActivations, kActivationNames>;

// Throws where the output of the activation does not tell its derivative.
inline void check_from_output(const Call& call, Activation a) {
    if (!kActivationFromOutput[static_cast<int>(a)])
        fail_value(call.op, "argument act is '", name_of(a), "', whose output does not tell its derivative");
}

// torch compares with lambd as a number of x's dtype: 0.1 in bfloat16 is 0.1001, which hardshrink makes 0. softshrink
// does so in its derivative alone.
inline double rounded(Activation a, double p0, DType dtype, bool derivative) {
    const bool rounds = a == Activation::hardshrink || (derivative && a == Activation::softshrink);
    if (!rounds || dtype == DType::f64) return p0;
    const auto value = static_cast<float>(p0);
    if (dtype == DType::f16) return static_cast<double>(static_cast<_Float16>(value));
    if (dtype != DType::bf16) return value;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    float made;
    std::memcpy(&made, &bits, sizeof made);
    return made;
}

}  // namespace nk
