#include <pybind11/pybind11.h>

#include "bindings.h"
#include "tensor/check.h"

PYBIND11_MODULE(_C, m) {
    m.doc() =
        "neurokern's kernels: every function checks its tensors, plans and launches, into the caller's output or a new "
        "one.";
    pybind11::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const nk::TypeError& e) {
            PyErr_SetString(PyExc_TypeError, e.what());
        }
    });
    nk::register_all(m);
}
