// matmul and its epilogue backward: check, then hand on to the backend of the tensors' device.
#include "matmul.h"

#include <algorithm>

#include "../kernels/activation.h"
#include "check.h"
#include "driver/launch.h"
#include "native.h"
#include "register.h"
#include "tensor_caster.h"

namespace py = pybind11;

namespace nk {

namespace {

void check_activation(const char* op, int activation) {
    if (activation < 0 || activation >= kActivations)
        fail_value(op, "argument act is ", activation, ", expected an id in [0, ", kActivations, ")");
}

void check_operand(const char* op, const char* arg, const TensorView& t, const MatmulCall& c) {
    check_same_dtype(op, arg, t, "out", c.out);
    check_same_device(op, arg, t, "out", c.out);
    if (!c.fresh) check_no_overlap(op, "out", c.out, arg, t, false);
}

// a[..., M, K] and b[..., K, N] against out[..., M, N].
void check_shapes(const char* op, const MatmulCall& c) {
    const int nd = c.out.ndim;
    if (nd < 2) fail_runtime(op, "argument out has shape ", shape_string(c.out), ", expected at least 2 dimensions");
    for (const auto& [arg, t] : {std::pair{"a", &c.a}, std::pair{"b", &c.b}}) {
        bool right = t->ndim == nd;
        for (int i = 0; right && i < nd - 2; ++i) right = t->shape[i] == c.out.shape[i];
        if (!right)
            fail_runtime(op, "argument ", arg, " has shape ", shape_string(*t),
                         ", expected the batch dimensions of argument out, ", shape_string(c.out));
    }
    if (c.a.size(-2) != c.m())
        fail_runtime(op, "argument a has shape ", shape_string(c.a), ", expected [..., ", c.m(),
                     ", K] for argument out ", shape_string(c.out));
    if (c.b.size(-2) != c.k() || c.b.size(-1) != c.n())
        fail_runtime(op, "argument b has shape ", shape_string(c.b), ", expected [..., ", c.k(), ", ", c.n(),
                     "] for argument a ", shape_string(c.a), " and argument out ", shape_string(c.out));
}

void check(const MatmulCall& c) {
    constexpr const char* op = "matmul";
    check_floating(op, "out", c.out);
    check_shapes(op, c);
    check_activation(op, c.activation);
    check_operand(op, "a", c.a, c);
    check_operand(op, "b", c.b, c);
    check_writable(op, "out", c.out);
    if (c.bias) {
        check_operand(op, "bias", *c.bias, c);
        if (c.bias->ndim != 1 || c.bias->shape[0] != c.n())
            fail_runtime(op, "argument bias has shape ", shape_string(*c.bias), ", expected [", c.n(), "]");
    }
    if (c.residual) {
        check_operand(op, "residual", *c.residual, c);
        check_same_shape(op, "residual", *c.residual, "out", c.out);
    }
    if (c.preact) {
        check_operand(op, "preact", *c.preact, c);
        check_same_shape(op, "preact", *c.preact, "out", c.out);
        check_writable(op, "preact", *c.preact);
        for (const auto& [arg, t] :
             {std::pair{"a", &c.a}, std::pair{"b", &c.b}, std::pair{"bias", c.bias}, std::pair{"residual", c.residual}})
            if (t) check_no_overlap(op, "preact", *c.preact, arg, *t, false);
    }
}

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

}  // namespace

void as_batch(TensorView& t, const int64_t* shape, int ndim) {
    if (t.ndim == ndim && std::equal(shape, shape + ndim - 2, t.shape)) return;
    int64_t own[kMaxDims];
    std::copy(shape, shape + ndim - 2, own);
    own[ndim - 2] = t.size(-2), own[ndim - 1] = t.size(-1);
    TensorView repeated = t;
    if (expand(repeated, own, ndim)) t = repeated;
}

void as_result(TensorView& t, bool row, bool column) {
    if (column) t.shape[t.ndim] = 1, t.stride[t.ndim] = 0, ++t.ndim;
    if (!row) return;
    t.shape[t.ndim] = t.shape[t.ndim - 1], t.stride[t.ndim] = t.stride[t.ndim - 1], ++t.ndim;
    t.shape[t.ndim - 2] = 1, t.stride[t.ndim - 2] = 0;
}

bool fold_rows(TensorView& t) {
    int64_t rows = 1, step = 0;
    for (int i = t.ndim - 2; i >= 0; --i) {
        if (t.shape[i] == 1) continue;
        if (rows == 1) step = t.stride[i];
        if (t.stride[i] != step * rows) return false;
        rows *= t.shape[i];
    }
    const int last = t.ndim - 1;
    t.shape[1] = t.shape[last], t.stride[1] = t.stride[last];
    t.shape[0] = rows, t.stride[0] = step;
    t.ndim = 2;
    return true;
}

namespace {

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
    OptionalArgument c(bias, op, "bias"), r(residual, op, "residual"), z(preact, op, "preact", driver::Contents::unset);
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
    OptionalArgument c(bias, op, "bias"), r(residual, op, "residual"), z(preact, op, "preact", driver::Contents::unset);
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

// Both as direct.cpp asks for them: the output, nothing besides, and what the gradients that are needed will need.
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

void run_matmul(const MatmulCall& call) {
    check(call);
    if (call.out.numel() == 0) return;
#if __has_include("matmul_cuda.cpp")
    if (driver::launches_on(call.out.device)) return matmul_cuda(call);
#endif
    if (call.out.device.kind != Device::cpu)
        fail_runtime("matmul", "argument out is on ", to_string(call.out.device), ", expected cpu: built without CUDA");
    matmul_cpu(call);
}

void register_matmul(py::module_& m) {
    def_native<&matmul>(
        m, "matmul", py::arg("out"), py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("residual"),
        py::arg("preact"), py::arg("act"), py::arg("p0"), py::arg("p1"), py::arg("alpha"), py::arg("beta"),
        "out = act(alpha * a @ b + bias) + beta * residual, one rounding at the end, with the shapes of torch.matmul; "
        "residual broadcasts to out; preact receives act's argument; out None: a new tensor. Returns out.");
    def_native<&product>(
        m, "product", py::arg("a"), py::arg("b"), py::arg("residual"), py::arg("ndim"), py::arg("alpha"),
        py::arg("beta"),
        "alpha * a @ b + beta * residual as matmul, a new tensor; ndim, unless 0: the dimensions of a and b, of one "
        "batch.");
    def_native<&product_recorded>(m, "product_recorded", py::arg("a"), py::arg("b"), py::arg("residual"),
                                  py::arg("ndim"), py::arg("alpha"), py::arg("beta"), py::arg("needs"),
                                  "(product, None, a, b), a or b None where no gradient will need it.");
    def_native<&linear>(
        m, "linear", py::arg("out"), py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("residual"),
        py::arg("preact"), py::arg("act"), py::arg("p0"), py::arg("p1"),
        "out[..., N] = act(input[..., K] @ weight[N, K].T + bias) + residual, as matmul; out None: a new tensor. "
        "Returns out.");
    def_native<&layer>(m, "layer", py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("residual"),
                       py::arg("act"), py::arg("p0"), py::arg("p1"), "linear into a new tensor.");
    def_native<&layer_recorded>(
        m, "layer_recorded", py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("residual"), py::arg("act"),
        py::arg("p0"), py::arg("p1"), py::arg("needs"),
        "(layer, None, input, weight, preact, bias), each of the last four None where no gradient will need it.");
    m.def("linear_preact", &linear_preact, py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("residual"),
          py::arg("act"), py::arg("p0"), py::arg("p1"), "linear into two new tensors: (out, preact).");
    register_activation_bias(m);
}

}  // namespace nk
