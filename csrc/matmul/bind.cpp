// matmul and linear as Python calls them: tensors are read, outputs made, and the product is handed on.
#include "matmul/bind.h"

#include <algorithm>

#include "bindings.h"
#include "call/kernel_entry.h"
#include "kernels/activation.h"
#include "matmul/call.h"
#include "tensor/arguments.h"
#include "tensor/check.h"

namespace py = pybind11;

namespace nk {

namespace {

// The shape of the product of a[..., M, K] and b[..., K, N], whose batch dimensions broadcast; returns their number.
int product_shape(const TensorView& a, const TensorView& b, int64_t* shape) {
    const int ndim = std::max(a.ndim, b.ndim);
    for (int i = 0; i < ndim - 2; ++i) {
        const int ia = i - ndim + a.ndim, ib = i - ndim + b.ndim;
        const int64_t sa = ia < 0 ? 1 : a.shape[ia], sb = ib < 0 ? 1 : b.shape[ib];
        shape[i] = sa == 1 ? sb : sa;
    }
    shape[ndim - 2] = a.size(-2), shape[ndim - 1] = b.size(-1);
    return ndim;
}

// ndim: what both arguments must have, their batches being the same; 0: any, and batches broadcast. uneven: whether one
// of them has fewer dimensions than the other, or than a matrix.
py::object multiply(py::handle out, py::handle a, py::handle b, py::handle bias, py::handle residual, py::handle preact,
                    int act, double p0, double p1, double alpha, double beta, int ndim_given, bool* uneven = nullptr) {
    constexpr const char* op = "matmul";
    Argument x(a, op, "a"), y(b, op, "b");
    if (ndim_given != 0 &&
        (x->ndim != ndim_given || y->ndim != ndim_given || !std::equal(x->shape, x->shape + ndim_given - 2, y->shape)))
        fail_runtime(op, "arguments a ", shape_string(x), " and b ", shape_string(y), ", expected ", ndim_given,
                     " dimensions of the same batch");
    if (x->ndim < 1 || y->ndim < 1)
        fail_runtime(op, "arguments a ", shape_string(x), " and b ", shape_string(y),
                     ", expected at least 1 dimension");
    const bool row = x->ndim == 1, column = y->ndim == 1;
    if (uneven != nullptr) *uneven = row || column || x->ndim != y->ndim;
    as_rows(x.view), as_columns(y.view);
    int64_t shape[kMaxDims + 2];
    const int ndim = product_shape(x, y, shape);
    as_batch(x.view, shape, ndim), as_batch(y.view, shape, ndim);
    // What a vector was given is taken from the result.
    int64_t seen[kMaxDims + 2];
    int64_t* end = std::copy(shape, shape + ndim - 2, seen);
    if (!row) *end++ = shape[ndim - 2];
    if (!column) *end++ = shape[ndim - 1];
    OutputArgument o(out, op, "out", x, seen, static_cast<int>(end - seen));
    OptionalArgument c(bias, op, "bias"), r(residual, op, "residual"), z(preact, op, "preact", Contents::unset);
    as_result(o.view, row, column);
    if (z.present) as_result(z.view, row, column);
    if (r.present && !r.view.same_shape(o.view)) {
        TensorView repeated = r.view;
        if (expand(repeated, shape, ndim)) r.view = repeated;
    }
    run_matmul({o.view, x.view, y.view, c.get(), r.get(), z.get(), act, {p0, p1}, alpha, beta, out.is_none()});
    return o.object;
}

py::object matmul(py::handle out, py::handle a, py::handle b, py::handle bias, py::handle residual, py::handle preact,
                  int act, double p0, double p1, double alpha, double beta) {
    return multiply(out, a, b, bias, residual, preact, act, p0, p1, alpha, beta, 0);
}

py::object product(py::handle a, py::handle b, py::handle residual, int ndim, double alpha, double beta) {
    const py::handle none = Py_None;
    return multiply(none, a, b, none, residual, none, static_cast<int>(Activation::identity), 0, 0, alpha, beta, ndim);
}

// weight[N, K] as b[..., K, N]: transposed, and shared by the batch of out.
void as_factor(TensorView& w, const TensorView& out) {
    const int64_t shape[] = {w.shape[1], w.shape[0]}, stride[] = {w.stride[1], w.stride[0]};
    w.ndim = out.ndim;
    for (int i = 0; i < w.ndim - 2; ++i) w.shape[i] = out.shape[i], w.stride[i] = 0;
    for (int i = 0; i < 2; ++i) w.shape[w.ndim - 2 + i] = shape[i], w.stride[w.ndim - 2 + i] = stride[i];
}

// Checks what launch can't say in linear's words, and hands its views on as a product.
void launch_linear(TensorView& out, TensorView& x, TensorView& w, OptionalArgument& bias, OptionalArgument& residual,
                   TensorView* preact, int act, double p0, double p1) {
    if (out.ndim != x.ndim)
        fail_runtime("linear", "argument out has shape ", shape_string(out), ", expected that of input ",
                     shape_string(x), " with ", w.shape[0], " at the end");
    as_rows(out), as_rows(x);
    if (residual.present) as_rows(residual.view);
    if (preact) as_rows(*preact);
    as_factor(w, out);
    run_matmul({out, x, w, bias.get(), residual.get(), preact, act, {p0, p1}, 1.0, 1.0});
}

void check_linear(const TensorView& x, const TensorView& w) {
    constexpr const char* op = "linear";
    check_same_dtype(op, "weight", w, "input", x);
    check_same_device(op, "weight", w, "input", x);
    if (w.ndim != 2 || x.ndim < 1 || x.size(-1) != w.shape[1])
        fail_runtime(op, "argument weight has shape ", shape_string(w),
                     ", expected [N, K] where K is the last size of input ", shape_string(x),
                     ", which has at least 1 dimension");
}

void linear_shape(const TensorView& x, const TensorView& w, int64_t* shape) {
    std::copy(x.shape, x.shape + x.ndim - 1, shape);
    shape[x.ndim - 1] = w.shape[0];
}

py::object linear(py::handle out, py::handle input, py::handle weight, py::handle bias, py::handle residual,
                  py::handle preact, int act, double p0, double p1) {
    constexpr const char* op = "linear";
    Argument x(input, op, "input"), w(weight, op, "weight");
    OptionalArgument c(bias, op, "bias"), r(residual, op, "residual"), z(preact, op, "preact", Contents::unset);
    check_linear(x, w);
    int64_t shape[kMaxDims];
    linear_shape(x, w, shape);
    OutputArgument o(out, op, "out", x, shape, x->ndim);
    launch_linear(o.view, x.view, w.view, c, r, z.present ? &z.view : nullptr, act, p0, p1);
    return o.object;
}

py::object layer(py::handle input, py::handle weight, py::handle bias, py::handle residual, int act, double p0,
                 double p1) {
    const py::handle none = Py_None;
    return linear(none, input, weight, bias, residual, none, act, p0, p1);
}

py::tuple linear_preact(py::handle input, py::handle weight, py::handle bias, py::handle residual, int act, double p0,
                        double p1) {
    constexpr const char* op = "linear";
    Argument x(input, op, "input"), w(weight, op, "weight");
    OptionalArgument c(bias, op, "bias"), r(residual, op, "residual");
    check_linear(x, w);
    int64_t shape[kMaxDims];
    linear_shape(x, w, shape);
    OutputArgument o(py::none(), op, "out", x, shape, x->ndim), z(py::none(), op, "preact", x, shape, x->ndim);
    launch_linear(o.view, x.view, w.view, c, r, &z.view, act, p0, p1);
    return py::make_tuple(o.object, z.object);
}

// Both as call/op.cpp asks for them: the output, nothing besides, and what the gradients that are needed will need.
py::object layer_recorded(py::handle input, py::handle weight, py::handle bias, py::handle residual, int act, double p0,
                          double p1, py::handle needs_) {
    const Needs needs("linear", needs_);
    const py::handle none = Py_None;
    if (act == static_cast<int>(Activation::identity))
        return py::make_tuple(layer(input, weight, bias, residual, act, p0, p1), none, needs[1] ? input : none,
                              needs[0] ? weight : none, none, none);
    const py::tuple made = linear_preact(input, weight, bias, residual, act, p0, p1);
    return py::make_tuple(made[0], none, input, weight, made[1], bias);
}

py::object product_recorded(py::handle a, py::handle b, py::handle residual, int ndim, double alpha, double beta,
                            py::handle needs_) {
    const Needs needs("matmul", needs_);
    const py::handle none = Py_None;
    bool uneven = false;
    const py::object out = multiply(none, a, b, none, residual, none, static_cast<int>(Activation::identity), 0, 0,
                                    alpha, beta, ndim, &uneven);
    // the shape of an uneven one is needed, even where its values are not
    return py::make_tuple(out, none, needs[1] || uneven ? a : none, needs[0] || uneven ? b : none);
}

}  // namespace

void register_matmul(py::module_& m) {
    def_kernel<&matmul>(
        m, "matmul", py::arg("out"), py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("residual"),
        py::arg("preact"), py::arg("act"), py::arg("p0"), py::arg("p1"), py::arg("alpha"), py::arg("beta"),
        "out = act(alpha * a @ b + bias) + beta * residual, one rounding at the end, with the shapes of torch.matmul; "
        "residual broadcasts to out; preact receives act's argument; out None: a new tensor. Returns out.");
    def_kernel<&product>(
        m, "product", py::arg("a"), py::arg("b"), py::arg("residual"), py::arg("ndim"), py::arg("alpha"),
        py::arg("beta"),
        "alpha * a @ b + beta * residual as matmul, a new tensor; ndim, unless 0: the dimensions of a and b, of one "
        "batch.");
    def_kernel<&product_recorded>(m, "product_recorded", py::arg("a"), py::arg("b"), py::arg("residual"),
                                  py::arg("ndim"), py::arg("alpha"), py::arg("beta"), py::arg("needs"),
                                  "(product, None, a, b), a or b None where no gradient will need it.");
    def_kernel<&linear>(
        m, "linear", py::arg("out"), py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("residual"),
        py::arg("preact"), py::arg("act"), py::arg("p0"), py::arg("p1"),
        "out[..., N] = act(input[..., K] @ weight[N, K].T + bias) + residual, as matmul; out None: a new tensor. "
        "Returns out.");
    def_kernel<&layer>(m, "layer", py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("residual"),
                       py::arg("act"), py::arg("p0"), py::arg("p1"), "linear into a new tensor.");
    def_kernel<&layer_recorded>(
        m, "layer_recorded", py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("residual"), py::arg("act"),
        py::arg("p0"), py::arg("p1"), py::arg("needs"),
        "(layer, None, input, weight, preact, bias), each of the last four None where no gradient will need it.");
    m.def("linear_preact", &linear_preact, py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("residual"),
          py::arg("act"), py::arg("p0"), py::arg("p1"), "linear into two new tensors: (out, preact).");
    register_backward(m);
    register_bias_backward(m);
    register_plan(m);
}

}  // namespace nk
