// The gradients of a linear layer in one call: activation's derivative with the bias gradient, dgrad, wgrad.
#include <algorithm>
#include <tuple>

#include "../kernels/activation.h"
#include "check.h"
#include "matmul.h"
#include "native.h"
#include "register.h"
#include "tensor_caster.h"

namespace py = pybind11;

namespace nk {

namespace {

constexpr const char* kLinearBackward = "linear_backward";

// A new tensor together with what a kernel sees of it.
struct NewTensor {
    py::object object = py::none();
    TensorView view;
    driver::HostMemory memory;
    bool made = false;

    void make(const TensorView& like, const int64_t* shape, int ndim) {
        object = steal(new_tensor(like, shape, ndim));
        read_tensor(object.ptr(), kLinearBackward, "output", view);
        memory = driver::HostMemory(view, driver::Contents::unset);
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

// For direct.cpp; NotImplemented where rows do not fold: autograd.matmul's backward copies them then. input or weight
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

}  // namespace

void register_linear_backward(py::module_& m) {
    m.def("linear_backward", &linear_backward, py::arg("g"), py::arg("x"), py::arg("weight"), py::arg("preact"),
          py::arg("act"), py::arg("p0"), py::arg("p1"), py::arg("wants_x"), py::arg("wants_w"), py::arg("wants_b"),
          "Gradients (gx [M, K], gw [N, K], gb [N]) of linear for g [M, N], each a new tensor, or None if not wanted.");
    def_native<&layer_backward>(
        m, "layer_backward", py::arg("g"), py::arg("input"), py::arg("weight"), py::arg("preact"), py::arg("bias"),
        py::arg("act"), py::arg("p0"), py::arg("p1"), py::arg("needs"),
        "Gradients of layer to (input, weight, bias, residual), None where needs has no True; NotImplemented where "
        "rows do not lie evenly.");
}

}  // namespace nk
