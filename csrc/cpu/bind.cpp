// The CPU's kernels as a whole: instruction set, threads.
#include <pybind11/pybind11.h>

#include "bindings.h"
#include "cpu/table.h"
#include "cpu/threads.h"

namespace py = pybind11;

namespace nk {

void register_cpu(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    m.def(
        "cpu_level", [] { return cpu::name_of(cpu::table().level); },
        "The instruction set whose kernels are in force.");
    m.def("cpu_detected", [] { return cpu::name_of(cpu::detect()); }, "The highest instruction set of this machine.");
    m.def("cpu_model", [] { return cpu::model_name(); }, "The processor's brand string.");
    m.def(
        "set_cpu_level", [](const char* name) { cpu::set_level(name); }, py::arg("name"),
        "Use the kernels of this instruction set (scalar, avx2, avx512, avx512bf16); ValueError if the machine lacks "
        "it.");
    m.def(
        "cpu_last_level_cache", [] { return cpu::last_level_cache(); },
        "Bytes of the processor's largest cache; 32 MiB where it does not say.");
    m.def("cpu_threads", [] { return cpu::max_threads(); }, "Threads that a kernel may use.");
}

}  // namespace nk
