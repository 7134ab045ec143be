// The parts of register_call.
#pragma once

#include <pybind11/pybind11.h>

namespace nk {

void register_torch_state(pybind11::module_& m);
void register_guards(pybind11::module_& m);
void register_class_attributes(pybind11::module_& m);
void register_op(pybind11::module_& m);

}  // namespace nk
