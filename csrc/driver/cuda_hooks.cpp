#include <pybind11/pybind11.h>

#include "driver/cuda_hooks.h"

namespace py = pybind11;

namespace nk {

namespace {
// Never destroyed: the interpreter may be gone when statics are.
py::object& tf32_allowed = *new py::object();
}  // namespace

bool allows_tf32() { return tf32_allowed && !tf32_allowed.is_none() && tf32_allowed().cast<bool>(); }

void register_cuda_hooks(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    m.def(
        "set_tf32_hook", [](py::object allowed) { tf32_allowed = std::move(allowed); }, py::arg("allowed"),
        "allowed() -> whether f32 products on CUDA may be rounded to tf32; None: never.");
}

}  // namespace nk
