// One function per family binds its ops; module.cpp calls them, each family's .cpp defines its own.
#pragma once

#include <pybind11/pybind11.h>

namespace nk {

void register_runtime(pybind11::module_& m);
void register_framework(pybind11::module_& m);
void register_quick_class(pybind11::module_& m);
void register_run(pybind11::module_& m);
void register_op(pybind11::module_& m);
void register_activation(pybind11::module_& m);
void register_softmax(pybind11::module_& m);
void register_normalization(pybind11::module_& m);
void register_matmul(pybind11::module_& m);
void register_cuda(pybind11::module_& m);

}  // namespace nk
