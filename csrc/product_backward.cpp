// The gradients of a product in one call, those that are needed, for autograd's common way (direct.cpp).
#include <algorithm>

#include "../kernels/activation.h"
#include "check.h"
#include "matmul.h"
#include "native.h"
#include "register.h"
#include "tensor_caster.h"

namespace py = pybind11;

namespace nk {

namespace {

constexpr const char* kOp = "product_backward";

// alpha * a @ b, a new tensor, both of the batch of g; row, column: a vector, without its dimension of one.
py::object multiply(const TensorView& g, const TensorView& a, const TensorView& b, double alpha, bool row,
                    bool column) {
    int64_t shape[kMaxDims + 2];
    int64_t* end = std::copy(g.shape, g.shape + g.ndim - 2, shape);
    if (!row) *end++ = a.size(-2);
    if (!column) *end++ = b.size(-1);
    OutputArgument o(py::none(), kOp, "gradient", g, shape, static_cast<int>(end - shape));
    as_result(o.view, row, column);
    run_matmul(
        {o.view, a, b, nullptr, nullptr, nullptr, static_cast<int>(Activation::identity), {0, 0}, alpha, 1.0, true});
    return o.object;
}

// NotImplemented where a gradient takes more than a product of views: autograd.matmul's backward does it then. a or b
// is None where the other needs no gradient, and then both have g's number of dimensions.
py::object product_backward(py::handle grad, py::handle left, py::handle right, int, double alpha, double beta,
                            py::handle needs) {
    const Needs wants(kOp, needs);
    Argument g(grad, kOp, "g");
    OptionalArgument a(left, kOp, "a"), b(right, kOp, "b");
    if ((wants[0] && !b.present) || (wants[1] && !a.present)) fail_type(kOp, "argument a or b is None, but needed");
    const bool row = a.present && a.view.ndim == 1, column = b.present && b.view.ndim == 1;
    as_rows(a.view), as_columns(b.view), as_result(g.view, row, column);
    const int ndim = std::max(a.view.ndim, b.view.ndim);  // of None: 0
    if (g->ndim != ndim || (a.present && (a.view.ndim < 2 || g->size(-2) != a.view.size(-2))) ||
        (b.present && (b.view.ndim < 2 || g->size(-1) != b.view.size(-1))) ||
        (a.present && b.present && a.view.size(-1) != b.view.size(-2)))
        fail_runtime(kOp, "argument g ", shape_string(g), " does not fit a ", shape_string(a.view), " and b ",
                     shape_string(b.view));
    const bool shared = b.present && b.view.ndim < ndim && b.view.ndim == 2;  // one b for a batch: rows of one product
    TensorView rows, grads;
    const py::object other = py::reinterpret_borrow<py::object>(Py_NotImplemented);
    if ((wants[2] && beta != 1) || (wants[0] && row && ndim > 2)) return other;
    if (wants[1] && shared && !(fold_rows(rows = a.view) && fold_rows(grads = g.view))) return other;
    py::object ga = py::none(), gb = py::none();
    // of the batch of g: autograd sums over what was broadcast
    if (wants[0]) {
        TensorView bt = transposed(b.view);
        as_batch(bt, g->shape, ndim);
        ga = multiply(g, g, bt, alpha, row, false);
    }
    if (wants[1]) {
        TensorView at = transposed(shared ? rows : a.view);
        if (!shared) as_batch(at, g->shape, ndim);
        const TensorView& gr = shared ? grads : g.view;
        gb = multiply(gr, at, gr, alpha, false, column);
    }
    return py::make_tuple(ga, gb, wants[2] ? py::reinterpret_borrow<py::object>(grad) : py::none());
}

}  // namespace

void register_product_backward(py::module_& m) {
    def_native<&product_backward>(
        m, "product_backward", py::arg("g"), py::arg("a"), py::arg("b"), py::arg("ndim"), py::arg("alpha"),
        py::arg("beta"), py::arg("needs"),
        "Gradients of product to (a, b, residual), None where needs has no True, broadcast where the product was; "
        "NotImplemented where they are no simple products.");
}

}  // namespace nk
