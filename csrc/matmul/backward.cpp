// The gradients of a linear layer and of a product, each in one call: of linear the activation's derivative with the
// bias gradient, then dgrad and wgrad.
#include <algorithm>
#include <tuple>

#include "call/kernel_entry.h"
#include "kernels/activation.h"
#include "matmul/bind.h"
#include "matmul/call.h"
#include "tensor/arguments.h"
#include "tensor/check.h"

namespace py = pybind11;

namespace nk {

namespace {

constexpr const char* kLinearBackward = "linear_backward";

// A new tensor together with what a kernel sees of it.
struct NewTensor {
    py::object object = py::none();
    TensorView view;
    HostMemory memory;
    bool made = false;

    void make(const TensorView& like, const int64_t* shape, int ndim) {
        object = steal(new_tensor(like, shape, ndim));
        read_tensor(object.ptr(), kLinearBackward, "output", view);
        memory = HostMemory(view, Contents::unset);
        made = true;
    }
    void make(const TensorView& like, std::initializer_list<int64_t> shape) {
        make(like, shape.begin(), static_cast<int>(shape.size()));
    }
    const TensorView* get() const { return made ? &view : nullptr; }
};

struct Wants {
    bool x, w, b;
};

struct Gradients {
    NewTensor x, w, b;
};

void check_given(Wants wants, const OptionalArgument& x, const OptionalArgument& w) {
    if (wants.x && !w.present) fail_type(kLinearBackward, "argument weight is None, but needed for the gradient of x");
    if (wants.w && !x.present) fail_type(kLinearBackward, "argument x is None, but needed for the gradient of weight");
}

// Of g[M, N], x[M, K], w[N, K], z[M, N] (null: no activation); x or w may be null where the other's gradient is not
// wanted; gx has `shape`, which folds to [M, K].
void differentiate(const TensorView& g, const TensorView* x, const TensorView* w, const TensorView* z, int act,
                   double p0, double p1, Wants wants, const int64_t* shape, int ndim, Gradients& to) {
    if (g.ndim != 2) fail_runtime(kLinearBackward, "argument g has shape ", shape_string(g), ", expected [M, N]");
    const int64_t m = g.shape[0], n = g.shape[1];
    for (const auto& [arg, t, rows] : {std::tuple{"x", x, m}, std::tuple{"weight", w, n}}) {
        if (t == nullptr) continue;
        if (t->ndim != 2 || t->shape[0] != rows || (x && w && x->size(-1) != w->size(-1)))
            fail_runtime(kLinearBackward, "argument ", arg, " has shape ", shape_string(*t), ", expected [", rows,
                         ", K] with K as the other's, for argument g ", shape_string(g));
        check_same_dtype(kLinearBackward, arg, *t, "g", g);
        check_same_device(kLinearBackward, arg, *t, "g", g);
    }
    NewTensor gz;
    const bool has_act = act != static_cast<int>(Activation::identity);
    if (has_act) gz.make(g, {m, n});
    if (wants.b) to.b.make(g, {n});
    if (has_act || wants.b) run_activation_bias_backward({gz.get(), to.b.get(), g, z, act, {p0, p1}});
    const TensorView& d = has_act ? gz.view : g;
    if (wants.x) {
        to.x.make(g, shape, ndim);
        as_rows(to.x.view), fold_rows(to.x.view);
        run_matmul({to.x.view, d, *w, nullptr, nullptr, nullptr, 0, {0, 0}, 1.0, 1.0, true});
    }
    if (wants.w) {
        to.w.make(g, {n, x->shape[1]});
        run_matmul({to.w.view, transposed(d), *x, nullptr, nullptr, nullptr, 0, {0, 0}, 1.0, 1.0, true});
    }
}

py::tuple linear_backward(py::handle grad, py::handle input, py::handle weight, py::handle preact, int act, double p0,
                          double p1, bool wants_x, bool wants_w, bool wants_b) {
    const Argument g(grad, kLinearBackward, "g");
    const OptionalArgument x(input, kLinearBackward, "x"), w(weight, kLinearBackward, "weight"),
        z(preact, kLinearBackward, "preact");
    const Wants wants{wants_x, wants_w, wants_b};
    check_given(wants, x, w);
    const int64_t shape[] = {g->ndim > 0 ? g->shape[0] : 0, wants_x && w.view.ndim == 2 ? w.view.shape[1] : 0};
    Gradients made;
    differentiate(g, x.get(), w.get(), z.get(), act, p0, p1, wants, shape, 2, made);
    return py::make_tuple(made.x.object, made.w.object, made.b.object);
}

// For call/op.cpp; NotImplemented where rows do not fold: autograd.matmul's backward copies them then. input or weight
// is None where the other needs no gradient.
py::object layer_backward(py::handle grad, py::handle input, py::handle weight, py::handle preact, py::handle, int act,
                          double p0, double p1, py::handle needs_) {
    const Needs needs(kLinearBackward, needs_);
    Argument g(grad, kLinearBackward, "g");
    OptionalArgument x(input, kLinearBackward, "input"), w(weight, kLinearBackward, "weight"),
        z(preact, kLinearBackward, "preact");
    const Wants wants{needs[0], needs[1], needs[2]};
    check_given(wants, x, w);
    int64_t shape[kMaxDims];  // of input's gradient
    const int ndim = g->ndim;
    std::copy(g->shape, g->shape + ndim, shape);
    if (wants.x && ndim > 0 && w.view.ndim > 0) shape[ndim - 1] = w.view.size(-1);
    for (TensorView* t : {&g.view, &x.view, &z.view}) {
        if (t->ndim == 0) continue;  // None
        as_rows(*t);
        if (!fold_rows(*t)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    }
    Gradients made;
    differentiate(g, x.get(), w.get(), z.get(), act, p0, p1, wants, shape, ndim, made);
    return py::make_tuple(made.x.object, made.w.object, made.b.object,
                          needs[3] ? py::reinterpret_borrow<py::object>(grad) : py::none());
}

constexpr const char* kProductBackward = "product_backward";

// alpha * a @ b, a new tensor, both of the batch of g; row, column: a vector, without its dimension of one.
py::object gradient_of(const TensorView& g, const TensorView& a, const TensorView& b, double alpha, bool row,
                       bool column) {
    int64_t shape[kMaxDims + 2];
    int64_t* end = std::copy(g.shape, g.shape + g.ndim - 2, shape);
    if (!row) *end++ = a.size(-2);
    if (!column) *end++ = b.size(-1);
    OutputArgument o(py::none(), kProductBackward, "gradient", g, shape, static_cast<int>(end - shape));
    as_result(o.view, row, column);
    run_matmul(
        {o.view, a, b, nullptr, nullptr, nullptr, static_cast<int>(Activation::identity), {0, 0}, alpha, 1.0, true});
    return o.object;
}

// NotImplemented where a gradient takes more than a product of views: autograd.matmul's backward does it then. a or b
// is None where the other needs no gradient, and then both have g's number of dimensions.
py::object product_backward(py::handle grad, py::handle left, py::handle right, int, double alpha, double beta,
                            py::handle needs) {
    const Needs wants(kProductBackward, needs);
    Argument g(grad, kProductBackward, "g");
    OptionalArgument a(left, kProductBackward, "a"), b(right, kProductBackward, "b");
    if ((wants[0] && !b.present) || (wants[1] && !a.present))
        fail_type(kProductBackward, "argument a or b is None, but needed");
    const bool row = a.present && a.view.ndim == 1, column = b.present && b.view.ndim == 1;
    as_rows(a.view), as_columns(b.view), as_result(g.view, row, column);
    const int ndim = std::max(a.view.ndim, b.view.ndim);  // of None: 0
    if (g->ndim != ndim || (a.present && (a.view.ndim < 2 || g->size(-2) != a.view.size(-2))) ||
        (b.present && (b.view.ndim < 2 || g->size(-1) != b.view.size(-1))) ||
        (a.present && b.present && a.view.size(-1) != b.view.size(-2)))
        fail_runtime(kProductBackward, "argument g ", shape_string(g), " does not fit a ", shape_string(a.view),
                     " and b ", shape_string(b.view));
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
        ga = gradient_of(g, g, bt, alpha, row, false);
    }
    if (wants[1]) {
        TensorView at = transposed(shared ? rows : a.view);
        if (!shared) as_batch(at, g->shape, ndim);
        const TensorView& gr = shared ? grads : g.view;
        gb = gradient_of(gr, at, gr, alpha, false, column);
    }
    return py::make_tuple(ga, gb, wants[2] ? py::reinterpret_borrow<py::object>(grad) : py::none());
}

}  // namespace

void register_backward(py::module_& m) {
    m.def("linear_backward", &linear_backward, py::arg("g"), py::arg("x"), py::arg("weight"), py::arg("preact"),
          py::arg("act"), py::arg("p0"), py::arg("p1"), py::arg("wants_x"), py::arg("wants_w"), py::arg("wants_b"),
          "Gradients (gx [M, K], gw [N, K], gb [N]) of linear for g [M, N], each a new tensor, or None if not wanted.");
    def_kernel<&layer_backward>(
        m, "layer_backward", py::arg("g"), py::arg("input"), py::arg("weight"), py::arg("preact"), py::arg("bias"),
        py::arg("act"), py::arg("p0"), py::arg("p1"), py::arg("needs"),
        "Gradients of layer to (input, weight, bias, residual), None where needs has no True; NotImplemented where "
        "rows do not lie evenly.");
    def_kernel<&product_backward>(
        m, "product_backward", py::arg("g"), py::arg("a"), py::arg("b"), py::arg("ndim"), py::arg("alpha"),
        py::arg("beta"), py::arg("needs"),
        "Gradients of product to (a, b, residual), None where needs has no True, broadcast where the product was; "
        "NotImplemented where they are no simple products.");
}

}  // namespace nk
