// The parts of register_activation.
#pragma once

#include <pybind11/pybind11.h>

namespace nk {

void register_unary(pybind11::module_& m);
void register_gated(pybind11::module_& m);
void register_prelu(pybind11::module_& m);

}  // namespace nk
