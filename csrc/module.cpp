#include "check.h"
#include "register.h"

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
    nk::register_runtime(m);
    nk::register_framework(m);
    nk::register_quick_class(m);
    nk::register_run(m);
    nk::register_op(m);
    nk::register_activation(m);
    nk::register_softmax(m);
    nk::register_normalization(m);
    nk::register_matmul(m);
    nk::register_cuda(m);
}
