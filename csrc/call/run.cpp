#include <pybind11/pybind11.h>

#include "call/run.h"

#include <algorithm>

#include "call/bind.h"

namespace nk {

namespace {
// The Triton functions by the names of kernel entries, once they are asked for; kept for good.
PyObject* triton = nullptr;
}  // namespace

void check_chosen(const Call& call, Device device) {
    const Backend chosen = context::settings().backend;
    const bool cpu = chosen == Backend::cpu;
    if (chosen == Backend::triton || (cpu ? device.kind == Device::cpu : driver::launches_on(device))) return;
    call.fail("backend '", cpu ? "cpu" : "cuda", "' got a tensor on ", to_string(device), ", expected ",
              cpu ? "cpu" : "cuda");
}

void run_on_triton(const Call& call, PyObject* const* outputs, int count) {
    constexpr Py_ssize_t kMost = 64;
    PyObject* arguments[kMost];
    if (count + call.count() > kMost) call.fail("too many arguments for the triton backend");
    PyObject** end = std::copy(outputs, outputs + count, arguments);
    end = std::copy(call.arguments(), call.arguments() + call.count(), end);
    const py::object function = py::handle(triton).attr(call.entry());
    if (PyObject* made = PyObject_Vectorcall(function.ptr(), arguments, end - arguments, nullptr))
        Py_DECREF(made);
    else
        throw py::error_already_set();
}

void register_run(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    m.def(
        "set_triton", [](py::object functions) { triton = functions.release().ptr(); }, py::arg("functions"),
        "Where the functions of the backend \"triton\" lie, under the names of this module's.");
}

}  // namespace nk
