// Gated units and their gradients: check, then run on the CPU or launch on CUDA.
#include "activation/bind.h"
#include "activation/check.h"
#include "activation/cpu.h"
#include "activation/cuda.h"
#include "call/kernel_entry.h"
#include "driver/launch.h"
#include "tensor/arguments.h"
#include "tensor/check.h"

namespace nk {

namespace {

constexpr int64_t kGatedRow = 32;  // the most that kernels of gated units take at a step

void run_gated(const TensorView& out, const TensorView& a, const TensorView& b, int act, double p0, double p1) {
    constexpr const char* op = "gated";
    const Activation id = checked_activation(op, act);
    check_tensors(op, {{"out", out}}, {{"a", a}, {"b", b}}, true);
    if (driver::launches_on(out.device)) return cuda::gated(out, a, b, cuda::arguments(id, p0, p1));
    cpu::Elementwise e = cpu::elementwise(cpu::Pass::gated, id, p0, p1, out);
    e.long_row = kGatedRow;
    e.ins = 2;
    e.tensor[0] = &out;
    e.tensor[1] = &a;
    e.tensor[2] = &b;
    cpu::run(op, name_of(id), e);
}

void gated(py::handle out_, py::handle a_, py::handle b_, int act, double p0, double p1) {
    const Argument out(out_, "gated", "out", Contents::unset), a(a_, "gated", "a"), b(b_, "gated", "b");
    run_gated(out, a, b, act, p0, p1);
}

void run_gated_backward(const TensorView& ga, const TensorView& gb, const TensorView& g, const TensorView& a,
                        const TensorView& b, int act, double p0, double p1) {
    constexpr const char* op = "gated_backward";
    const Activation id = checked_activation(op, act);
    check_tensors(op, {{"ga", ga}, {"gb", gb}}, {{"g", g}, {"a", a}, {"b", b}}, false);
    if (driver::launches_on(ga.device)) return cuda::gated_backward(ga, gb, g, a, b, cuda::arguments(id, p0, p1));
    cpu::Elementwise e = cpu::elementwise(cpu::Pass::gated_backward, id, p0, p1, ga);
    e.long_row = kGatedRow;
    e.outs = 2;
    e.ins = 3;
    e.tensor[0] = &ga;
    e.tensor[1] = &gb;
    e.tensor[2] = &g;
    e.tensor[3] = &a;
    e.tensor[4] = &b;
    cpu::run(op, name_of(id), e);
}

void gated_backward(py::handle ga_, py::handle gb_, py::handle g_, py::handle a_, py::handle b_, int act, double p0,
                    double p1) {
    constexpr const char* op = "gated_backward";
    const Argument ga(ga_, op, "ga", Contents::unset), gb(gb_, op, "gb", Contents::unset), g(g_, op, "g"),
        a(a_, op, "a"), b(b_, op, "b");
    run_gated_backward(ga, gb, g, a, b, act, p0, p1);
}

// The two halves of a tensor along dim: what the activation is applied to, and what it gates.
struct Halves {
    TensorView a, b;

    Halves(const char* op, const TensorView& x, int dim, bool first) : a(x), b(x) {
        if (dim < -x.ndim || dim >= x.ndim)
            fail_index(op, "argument dim is ", dim, ", expected from ", -x.ndim, " to ", x.ndim - 1);
        if (dim < 0) dim += x.ndim;
        if (x.shape[dim] % 2 != 0)
            fail_runtime(op, "argument x has shape ", shape_string(x), ", expected an even size in dimension ", dim);
        a.shape[dim] = b.shape[dim] = x.shape[dim] / 2;
        TensorView& second = first ? b : a;
        if (second.data != nullptr)
            second.data = static_cast<char*>(x.data) + x.shape[dim] / 2 * x.stride[dim] * size_of(x.dtype);
    }
};

// The output lies as torch's would: as a half of x does.
py::object new_half(py::handle object, const TensorView& x, int dim, const TensorView& half) {
    if (x.is_contiguous()) return steal(new_tensor(x, half.shape, x.ndim));
    dim = dim < 0 ? dim + x.ndim : dim;
    return steal(new_like(object.attr("narrow")(dim, 0, half.shape[dim]).ptr(), half));
}

py::object glu(py::handle x_, int dim, int act, bool first) {
    const Argument x(x_, "glu", "x");
    const Halves in("glu", x, dim, first);
    const py::object object = new_half(x_, x, dim, in.a);
    run_gated(Argument(object, "glu", "out", Contents::unset), in.a, in.b, act, 0, 0);
    return object;
}

py::object glu_backward(py::handle g_, py::handle x_, int dim, int act, bool first) {
    const Argument g(g_, "glu_backward", "g"), x(x_, "glu_backward", "x");
    const py::object object = steal(new_like(x_.ptr(), x));
    const Argument gx(object, "glu_backward", "gx", Contents::unset);
    const Halves in("glu_backward", x, dim, first), out("glu_backward", gx, dim, first);
    run_gated_backward(out.a, out.b, g, in.a, in.b, act, 0, 0);
    return object;
}

}  // namespace

void register_gated(py::module_& m) {
    using py::arg;
    m.def("gated", &gated, arg("out"), arg("a"), arg("b"), arg("act"), arg("p0") = 0.0, arg("p1") = 0.0,
          "out = act(a) * b.");
    m.def("gated_backward", &gated_backward, arg("ga"), arg("gb"), arg("g"), arg("a"), arg("b"), arg("act"),
          arg("p0") = 0.0, arg("p1") = 0.0, "ga = g * b * act'(a), gb = g * act(a).");
    def_kernel<&glu>(m, "glu", arg("x"), arg("dim"), arg("act"), arg("first"),
                     "A new tensor: act(one half of x along dim) * the other; first: act is on the first half.");
    def_kernel<&glu_backward>(m, "glu_backward", arg("g"), arg("x"), arg("dim"), arg("act"), arg("first"),
                              "A new tensor: the gradient of glu for x.");
}

}  // namespace nk
