#include <pybind11/pybind11.h>

#include "call/bind.h"

#include "bindings.h"

namespace py = pybind11;

namespace nk {

void register_call(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    register_torch_state(m);
    register_guards(m);
    register_class_attributes(m);
    register_run(m);
    register_op(m);
}

}  // namespace nk
