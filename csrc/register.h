// One function per family binds its ops; module.cpp calls them, each family's .cpp defines its own.
#pragma once

#include <pybind11/pybind11.h>

namespace nk {

void register_runtime(pybind11::module_& m);
void register_framework(pybind11::module_& m);
void register_quick_class(pybind11::module_& m);
void register_direct(pybind11::module_& m);
void register_activation(pybind11::module_& m);
void register_softmax(pybind11::module_& m);
void register_matmul(pybind11::module_& m);
void register_linear_backward(pybind11::module_& m);
void register_product_backward(pybind11::module_& m);
void register_activation_bias(pybind11::module_& m);  // called by register_matmul
void register_normalization(pybind11::module_& m);
void register_cuda(pybind11::module_& m);

}  // namespace nk
