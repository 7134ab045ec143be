// PReLU, RReLU and their gradients: check, then run on the CPU or launch on CUDA.
#include "activation/prelu.h"
#include "activation/bind.h"
#include "activation/check.h"
#include "activation/cpu.h"
#include "activation/cuda.h"
#include "call/kernel_entry.h"
#include "cpu/table.h"
#include "driver/launch.h"
#include "tensor/arguments.h"
#include "tensor/check.h"

namespace nk {

namespace {

// A weight of one value, or one for each index of x's dim 1, as a view of x's shape.
void as_channels(const char* op, TensorView& w, const TensorView& x) {
    const bool one = w.ndim < 2 && w.numel() == 1;
    if (!one && (w.ndim != 1 || x.ndim < 2 || w.shape[0] != x.shape[1]))
        fail_runtime(op, "argument weight has shape ", shape_string(w), ", expected 1 element or the size of dim 1 of ",
                     shape_string(x));
    const int64_t step = one ? 0 : w.stride[0];
    w.ndim = x.ndim;
    for (int d = 0; d < x.ndim; ++d) w.shape[d] = x.shape[d], w.stride[d] = d == 1 ? step : 0;
}

void run_prelu(const char* op, const TensorView& out, const TensorView& x, const TensorView& w) {
    check_tensors(op, {{"out", out}}, {{"x", x}, {"weight", w}}, true);
    if (driver::launches_on(out.device)) return cuda::prelu(out, x, w);
    const cpu::Table& t = cpu::table();
    cpu::Elementwise e{t.activation.prelu[static_cast<int>(out.dtype)],
                       1,
                       2,
                       {0, 0},
                       cpu::cost_of(Activation::relu, cpu::Pass::backward, out.dtype),
                       {&out, &x, &w}};
    e.reads_one = true;
    e.soon = true;  // with a gradient, too, nothing was lost by it
    cpu::run(op, "prelu", e);
}

py::object prelu(py::handle out_, py::handle x_, py::handle w_) {
    constexpr const char* op = "prelu";
    const Argument x(x_, op, "x");
    Argument w(w_, op, "weight");
    as_channels(op, w.view, x);
    const OutputArgument out(out_, op, "out", x_, x);
    run_prelu(op, out, x, w);
    return out.object;
}

py::object rrelu(py::handle out_, py::handle x_, py::handle noise_) {
    constexpr const char* op = "rrelu";
    const Argument x(x_, op, "x"), noise(noise_, op, "noise");
    const OutputArgument out(out_, op, "out", x, x->shape, x->ndim);  // contiguous, as torch's
    run_prelu(op, out, x, noise);
    return out.object;
}

void run_prelu_backward(const TensorView& gx, const TensorView* gw, const TensorView& g, const TensorView& x,
                        const TensorView& w) {
    constexpr const char* op = "prelu_backward";
    check_floating(op, "gx", gx);
    check_writable(op, "gx", gx);
    const struct {
        const char* name;
        const TensorView& view;
    } ins[] = {{"g", g}, {"x", x}, {"w", w}};
    for (const auto& in : ins) {
        check_like(op, in.name, in.view, "gx", gx);
        check_no_overlap(op, "gx", gx, in.name, in.view, true);
    }
    int64_t channels = 1;
    if (gw != nullptr) {
        channels = gw->numel();
        const int64_t expected = x.ndim >= 2 ? x.shape[1] : 1;
        check_same_dtype(op, "gw", *gw, "gx", gx);
        check_same_device(op, "gw", *gw, "gx", gx);
        if (gw->ndim > 1 || (channels != 1 && channels != expected))
            fail_runtime(op, "argument gw has shape ", shape_string(*gw), ", expected [", expected, "] or [1]");
        check_writable(op, "gw", *gw);
        for (const auto& in : ins) check_no_overlap(op, "gw", *gw, in.name, in.view, false);
        check_no_overlap(op, "gw", *gw, "gx", gx, false);
    }
    if (driver::launches_on(gx.device)) return cuda::prelu_backward(gx, gw, g, x, w);
    cpu::prelu_backward(gx, gw, g, x, w);
}

void prelu_backward(py::handle gx_, py::handle gw_, py::handle g_, py::handle x_, py::handle w_) {
    constexpr const char* op = "prelu_backward";
    const Argument gx(gx_, op, "gx", Contents::unset), g(g_, op, "g"), x(x_, op, "x"), w(w_, op, "w");
    const OptionalArgument gw(gw_, op, "gw", Contents::unset);
    run_prelu_backward(gx, gw.get(), g, x, w);
}

py::object prelu_gradients(py::handle out, py::handle g_, py::handle x_, py::handle w_) {
    constexpr const char* op = "prelu_backward";
    if (!out.is_none()) fail_type(op, "argument out is a tensor, expected None");
    const Argument g(g_, op, "g"), x(x_, op, "x");
    Argument w(w_, op, "weight");
    const OutputArgument gx(out, op, "gx", x_, x), gw(out, op, "gw", w, w->shape, w->ndim);
    as_channels(op, w.view, x);
    run_prelu_backward(gx, &gw.view, g, x, w);
    return py::make_tuple(gx.object, gw.object);
}

}  // namespace

void register_prelu(py::module_& m) {
    using py::arg;
    def_kernel<&prelu>(m, "prelu", arg("out"), arg("x"), arg("w"),
                       "out = x where x > 0, else w * x, as unary; w has one value, or one for each index of dim 1.");
    m.def("rrelu", &rrelu, arg("out"), arg("x"), arg("noise"),
          "out = x where x > 0, else noise * x, as unary; noise has x's shape.");
    m.def(
        "prelu_backward", &prelu_backward, arg("gx"), arg("gw").none(true), arg("g"), arg("x"), arg("w"),
        "gx = g where x > 0, else w * g; gw: sums of x * g where x <= 0, one for each index of dim 1, or one in all.");
    def_kernel<&prelu_gradients>(m, "prelu_gradients", arg("out").none(true), arg("g"), arg("x"), arg("weight"),
                                 "(gx, gw) of prelu in new tensors, with the layout of x and contiguous; out: None.");
}

}  // namespace nk
