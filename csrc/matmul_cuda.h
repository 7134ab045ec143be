// What Python may ask of the CUDA plan; matmul_cuda itself is declared in matmul.h.
#pragma once

#include <pybind11/pybind11.h>

namespace nk {

// _C.matmul_plan and _C.matmul_kernels, which need no device.
void register_matmul_cuda(pybind11::module_& m);

}  // namespace nk
