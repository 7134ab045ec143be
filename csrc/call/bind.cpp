#include <pybind11/pybind11.h>

#include "call/bind.h"

#include "bindings.h"
#include "call/trace.h"

namespace py = pybind11;

namespace nk {

void register_call(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    register_torch_state(m);
    register_guards(m);
    register_class_attributes(m);
    register_run(m);
    register_op(m);
    m.def("trace_start", [](bool on) { trace::enabled = on; }, py::arg("on"), "Record launches from now on, or stop.");
    m.def(
        "trace_take",
        [] {
            py::list out;
            for (auto& l : trace::take()) out.append(py::make_tuple(l.op, l.backend, l.kernel, l.plan, l.reason));
            return out;
        },
        "Take the launches recorded so far, as (op, backend, kernel, plan, reason).");
}

}  // namespace nk
