#include <pybind11/pybind11.h>

#include "call/run.h"

#include <algorithm>

#include "call/bind.h"

namespace nk {

Chosen chosen;

void check_chosen(const Call& call, Device device) {
    const bool fits = chosen.backend == Backend::triton ||
                      (chosen.backend == Backend::cpu ? device.kind == Device::cpu : driver::launches_on(device));
    if (fits) return;
    const bool cpu = chosen.backend == Backend::cpu;
    call.fail("backend '", cpu ? "cpu" : "cuda", "' got a tensor on ", to_string(device), ", expected ",
              cpu ? "cpu" : "cuda");
}

void run_on_triton(const Call& call, PyObject* const* outputs, int count) {
    constexpr Py_ssize_t kMost = 64;
    PyObject* arguments[kMost];
    if (count + call.count() > kMost) call.fail("too many arguments for the triton backend");
    PyObject** end = std::copy(outputs, outputs + count, arguments);
    end = std::copy(call.arguments(), call.arguments() + call.count(), end);
    const py::object function = py::handle(chosen.triton).attr(call.entry());
    if (PyObject* made = PyObject_Vectorcall(function.ptr(), arguments, end - arguments, nullptr))
        Py_DECREF(made);
    else
        throw py::error_already_set();
}

void register_run(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    m.def(
        "set_backend",
        [](const std::string& name, py::object triton) {
            constexpr const char* names[] = {"auto", "cpu", "cuda", "triton"};
            const auto* found = std::find(std::begin(names), std::end(names), name);
            if (found == std::end(names)) fail_value("set_backend", "argument name is '", name, "'");
            Py_XDECREF(chosen.triton);
            chosen = {static_cast<Backend>(found - names), triton.release().ptr()};
        },
        py::arg("name"), py::arg("triton") = py::none(),
        "Run on this backend alone; \"auto\": on the one of the tensors' device. triton: where the functions of that "
        "backend lie, under the names of this module's.");
}

}  // namespace nk
