// The parts of register_activation.
#pragma once

#include <pybind11/pytypes.h>

namespace nk {

void register_unary(pybind11::handle m);
void register_gated(pybind11::handle m);
void register_prelu(pybind11::handle m);

}  // namespace nk
