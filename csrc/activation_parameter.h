// An activation as an argument of a launcher: by its name.
#pragma once

#include "../kernels/activation.h"
#include "call/call.h"

namespace nk {

using ActivationName = NameOf<Activation, kActivations, kActivationNames>;

// Throws where the output of the activation does not tell its derivative.
inline void check_from_output(const Call& call, Activation a) {
    if (!kActivationFromOutput[static_cast<int>(a)])
        fail_value(call.op, "argument act is '", name_of(a), "', whose output does not tell its derivative");
}

}  // namespace nk
