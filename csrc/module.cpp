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
    nk::register_direct(m);
    nk::register_normalization(m);
#ifdef NK_BUILD_ACTIVATION
    nk::register_activation(m);
    nk::register_softmax(m);
#endif
#ifdef NK_BUILD_MATMUL
    nk::register_matmul(m);
    nk::register_linear_backward(m);
    nk::register_product_backward(m);
#endif
#ifdef NK_BUILD_CUDA_HOST
    nk::register_cuda(m);
#endif
}
