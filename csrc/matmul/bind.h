// A part of register_matmul, and what Python may ask of the CUDA plan.
#pragma once

#include <pybind11/pytypes.h>

#include <string>

namespace nk {

void register_plan(pybind11::handle m);  // needs no device

// Plans take only kernels whose name contains `part` from now on: for tests of one kernel and for tuning.
void set_matmul_only(std::string part);

}  // namespace nk
