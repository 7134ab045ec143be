// The parts of register_call.
#pragma once

#include <pybind11/pytypes.h>

namespace nk {

void register_torch_state(pybind11::handle m);
void register_guards(pybind11::handle m);
void register_class_attributes(pybind11::handle m);
void register_run(pybind11::handle m);
void register_op(pybind11::handle m);

}  // namespace nk
