// What Python may ask of the CUDA plan; matmul_cuda itself is declared in matmul.h.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace nk {

// Plans take only kernels whose name contains `part` from now on: for tests of one kernel and for tuning.
void set_matmul_only(std::string part);

// _C.matmul_plan and _C.matmul_kernels, which need no device.
void register_matmul_cuda(pybind11::module_& m);

}  // namespace nk
