// What is true of the module as a whole: CPU level, threads, trace.
#include "cpu/table.h"
#include "cpu/threads.h"
#include "register.h"
#include "tensor.h"
#include "trace.h"

namespace py = pybind11;

namespace nk {

void register_runtime(py::module_& m) {
    m.def(
        "cpu_level", [] { return cpu::name_of(cpu::table().level); },
        "The instruction set whose kernels are in force.");
    m.def("cpu_detected", [] { return cpu::name_of(cpu::detect()); }, "The highest instruction set of this machine.");
    m.def("cpu_model", [] { return cpu::model_name(); }, "The processor's brand string.");
    m.def(
        "set_cpu_level", [](const char* name) { cpu::set_level(name); }, py::arg("name"),
        "Use the kernels of this instruction set (scalar, avx2, avx512, avx512bf16); ValueError if the machine lacks "
        "it.");
    m.def("cpu_threads", [] { return cpu::max_threads(); }, "Threads that a kernel may use.");

    m.def(
        "set_allocator",
        [](py::handle empty_strided, py::handle empty_like, const py::dict& dtypes) {
            void* in_order[kTypes];
            for (int i = 0; i < kTypes; ++i)
                in_order[i] = py::object(dtypes[name_of(static_cast<DType>(i))]).release().ptr();
            set_allocator(empty_strided.is_none() ? nullptr : empty_strided.inc_ref().ptr(), empty_like.inc_ref().ptr(),
                          in_order);
        },
        py::arg("empty_strided").none(true), py::arg("empty_like"), py::arg("dtypes"),
        "torch's functions that new tensors come from: empty_strided(shape, stride, dtype) on the CPU or None, "
        "empty_like(x); its dtypes by name.");
    m.def(
        "poison_new_tensors", [](bool on) { poison_new_tensors = on; }, py::arg("on"),
        "For tests: tensors that the launchers allocate on the CPU start as NaN.");

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
