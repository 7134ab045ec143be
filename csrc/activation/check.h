// What the ops of this family check.
#pragma once

#include <initializer_list>

#include "kernels/activation.h"
#include "tensor/view.h"

namespace nk {

Activation checked_activation(const char* op, int act);

struct Named {
    const char* name;
    const TensorView& view;
};

// Everything that can be wrong with the tensors of an elementwise op; in_place: an output may be this input's view.
void check_tensors(const char* op, std::initializer_list<Named> outs, std::initializer_list<Named> ins, bool in_place);

}  // namespace nk
