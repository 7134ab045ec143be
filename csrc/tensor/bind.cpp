// Where new tensors come from.
#include <pybind11/pybind11.h>

#include "bindings.h"
#include "tensor/allocate.h"

namespace py = pybind11;

namespace nk {

void register_tensor(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
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
}

}  // namespace nk
