// Elementwise activations, their derivatives, gated units and PReLU: check, then run on the CPU or launch on CUDA.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "check.h"
#include "cpu/runs.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "driver/launch.h"
#include "elementwise.h"
#include "native.h"
#include "prelu.h"
#include "register.h"
#include "tensor_caster.h"
#include "trace.h"

#if __has_include("activation_cuda.h")
#include "activation_cuda.h"
#define NK_HAVE_ACTIVATION_CUDA 1
#endif

namespace nk {

namespace {

using cpu::Elementwise;
using cpu::Pass;

[[maybe_unused, noreturn]] void fail_device(const char* op, const TensorView& t) {
    fail_runtime(op, "argument out is on ", to_string(t.device), ", but this build has no CUDA kernels for it");
}

Activation checked_activation(const char* op, int act) {
    if (act < 0 || act >= kActivations)
        fail_value(op, "argument act is ", act, ", expected an id from 0 to ", kActivations - 1);
    return static_cast<Activation>(act);
}

// Nanoseconds per element in cache; what matters is only the order of magnitude.
double cost_of(Activation a, Pass pass, DType dtype, cpu::Level level, bool of_output = false) {
    bool cheap = of_output;
    switch (a) {
        case Activation::identity:
        case Activation::relu:
        case Activation::relu6:
        case Activation::leaky_relu:
        case Activation::hardsigmoid:
        case Activation::hardswish:
        case Activation::hardtanh:
        case Activation::hardshrink:
        case Activation::softshrink:
        case Activation::threshold:
        case Activation::squared_relu:
            cheap = true;
            break;
        default:
            break;
    }
    double cost = cheap ? 0.15 : 0.3;
    if (pass != Pass::forward) cost *= 1.5;
    if (dtype == DType::f64) cost *= 2;
    if (level == cpu::Level::scalar) cost *= cheap ? 4 : 30;
    return cost;
}

struct Named {
    const char* name;
    const TensorView& view;
};

// Everything that can be wrong with the tensors of an elementwise op; in_place: an output may be this input's view.
void check_tensors(const char* op, std::initializer_list<Named> outs, std::initializer_list<Named> ins, bool in_place) {
    const Named& first = *outs.begin();
    check_floating(op, first.name, first.view);
    for (const Named& o : outs) {
        if (&o != &first) check_like(op, o.name, o.view, first.name, first.view);
        check_writable(op, o.name, o.view);
    }
    for (const Named& i : ins) check_like(op, i.name, i.view, first.name, first.view);
    for (const Named& o : outs)
        for (const Named& i : ins) check_no_overlap(op, o.name, o.view, i.name, i.view, in_place);
    if (outs.size() == 2) {
        const Named& second = *(outs.begin() + 1);
        check_no_overlap(op, second.name, second.view, first.name, first.view, false);
    }
}

void trace_cpu(const char* op, const char* kernel, const char* plan, int64_t n, double cost) {
    trace::record({op, "cpu", kernel,
                   concat(cpu::name_of(cpu::table().level), ", ", plan, ", ", cpu::threads_for(n, cost), " threads"),
                   ""});
}

void run(const char* op, const char* kernel, const Elementwise& e) {
    const int64_t n = e.tensor[0]->numel();
    if (n == 0) return;
    const bool plain = cpu::is_plain(e);
    if (trace::active()) trace_cpu(op, kernel, plain ? "contiguous" : "strided", n, e.cost);
    if (static_cast<double>(n) * e.cost > cpu::kReleaseAt) {
        py::gil_scoped_release released;
        plain ? cpu::run_plain(e, n) : cpu::run_strided(e);
    } else {
        plain ? cpu::run_plain(e, n) : cpu::run_strided(e);
    }
}

Elementwise elementwise(Pass pass, Activation a, double p0, double p1, const TensorView& out) {
    const cpu::Table& t = cpu::table();
    const auto kernel = t.activation.run[static_cast<int>(pass)][static_cast<int>(a)][static_cast<int>(out.dtype)];
    const bool of_output = p0 != 0 && pass != Pass::forward && (a == Activation::sigmoid || a == Activation::tanh);
    return {kernel, 1, 0, {p0, p1}, cost_of(a, pass, out.dtype, t.level, of_output), {}};
}

py::object run_unary(py::handle out_, py::handle x_, const Argument& x, Activation a, double p0, double p1,
                     bool recorded) {
    constexpr const char* op = "unary";
    const OutputArgument out = a == Activation::logsigmoid
                                   ? OutputArgument(out_, op, "out", x, x->shape, x->ndim)  // contiguous, as torch's
                                   : OutputArgument(out_, op, "out", x_, x);
    check_tensors(op, {{"out", out}}, {{"x", x}}, true);
    if (driver::launches_on(out->device)) {
#ifdef NK_HAVE_ACTIVATION_CUDA
        cuda::unary(out, x, {a, p0, p1});
        return out.object;
#else
        fail_device(op, out);
#endif
    }
    Elementwise e = elementwise(Pass::forward, a, p0, p1, out);
    e.ins = 1;
    e.tensor[0] = &out.view;
    e.tensor[1] = &x.view;
    e.soon = !recorded;
    run(op, name_of(a), e);
    return out.object;
}

py::object unary(py::handle out, py::handle x, int act, double p0, double p1) {
    return run_unary(out, x, Argument(x, "unary", "x"), checked_activation("unary", act), p0, p1, false);
}

// What is kept of x for the backward pass where that needs one bit of each element: a third less to read there.
struct Bits {
    static constexpr const char* kName = "neurokern.bits";
    static constexpr int64_t kFrom = 4096;  // elements; fewer are not worth the memory's price
    cpu::Level level;                       // the order of the bits is the kernels' own
    Activation activation;
    DType dtype;
    int64_t elements;
    unsigned char* data() { return reinterpret_cast<unsigned char*>(this + 1); }

    static py::capsule make(Activation a, const TensorView& x, int64_t n) {
        auto* bits = static_cast<Bits*>(std::malloc(sizeof(Bits) + static_cast<size_t>((n + 63) / 64 * 8)));
        if (bits == nullptr) throw std::bad_alloc();
        *bits = {cpu::table().level, a, x.dtype, n};
        return py::capsule(bits, kName, [](PyObject* o) { std::free(PyCapsule_GetPointer(o, kName)); });
    }
    // Those that were kept for this, or null.
    static Bits* of(py::handle kept, Activation a, const TensorView& out, const TensorView& g) {
        if (!PyCapsule_CheckExact(kept.ptr())) return nullptr;
        auto* b = static_cast<Bits*>(PyCapsule_GetPointer(kept.ptr(), kName));
        if (b == nullptr) throw py::error_already_set();
        const bool fits =
            b->level == cpu::table().level && b->activation == a && b->dtype == out.dtype && b->elements == out.numel();
        return fits && cpu::is_plain({nullptr, 1, 1, {}, 0, {&out, &g}}) ? b : nullptr;
    }
};

py::object unary_recorded(py::handle out_, py::handle x_, int act, double p0, double p1) {
    constexpr const char* op = "unary";
    const Activation a = checked_activation(op, act);
    const cpu::RunKernel(&row)[kFloatTypes] = cpu::table().activation.keeping[act];
    const Argument x(x_, op, "x");
    const int64_t n = x->numel();
    if (row[0] == nullptr || !out_.is_none() || n < Bits::kFrom || !is_floating(x->dtype) || !x->is_contiguous() ||
        driver::launches_on(x->device))
        return run_unary(out_, x_, x, a, p0, p1, true);
    const OutputArgument out(out_, op, "out", x_, x);
    const py::capsule kept = Bits::make(a, x, n);
    Elementwise e = elementwise(Pass::forward, a, p0, p1, out);
    e.kernel = row[static_cast<int>(out->dtype)];
    e.ins = 1;
    e.tensor[0] = &out.view;
    e.tensor[1] = &x.view;
    e.bits = kept.get_pointer<Bits>()->data();
    run(op, name_of(a), e);
    return py::make_tuple(out.object, kept);
}

py::object unary_backward(py::handle out_, py::handle g_, py::handle x_, int act, double p0, double p1,
                          py::handle kept) {
    constexpr const char* op = "unary_backward";
    const Argument g(g_, op, "g"), x(x_, op, "x");
    const OutputArgument out(out_, op, "out", x_, x);
    const Activation a = checked_activation(op, act);
    check_tensors(op, {{"out", out}}, {{"g", g}, {"x", x}}, true);
    if (driver::launches_on(out->device)) {
#ifdef NK_HAVE_ACTIVATION_CUDA
        cuda::unary_backward(out, g, x, {a, p0, p1});
        return out.object;
#else
        fail_device(op, out);
#endif
    }
    Elementwise e = elementwise(Pass::backward, a, p0, p1, out);
    e.ins = 2;
    e.tensor[0] = &out.view;
    e.tensor[1] = &g.view;
    e.tensor[2] = &x.view;
    if (Bits* bits = Bits::of(kept, a, out, g)) {
        e.kernel = cpu::table().activation.kept[act][static_cast<int>(out->dtype)];
        e.ins = 1;
        e.bits = bits->data();
    }
    run(op, name_of(a), e);
    return out.object;
}

py::object unary_backward2(py::handle out_, py::handle gg_, py::handle g_, py::handle x_, int act, double p0,
                           double p1) {
    constexpr const char* op = "unary_backward2";
    const Argument gg(gg_, op, "gg"), g(g_, op, "g"), x(x_, op, "x");
    const OutputArgument out(out_, op, "out", x_, x);
    const Activation a = checked_activation(op, act);
    check_tensors(op, {{"out", out}}, {{"gg", gg}, {"g", g}, {"x", x}}, true);
    if (driver::launches_on(out->device)) {
#ifdef NK_HAVE_ACTIVATION_CUDA
        cuda::unary_backward2(out, gg, g, x, {a, p0, p1});
        return out.object;
#else
        fail_device(op, out);
#endif
    }
    Elementwise e = elementwise(Pass::backward2, a, p0, p1, out);
    e.ins = 3;
    e.tensor[0] = &out.view;
    e.tensor[1] = &gg.view;
    e.tensor[2] = &g.view;
    e.tensor[3] = &x.view;
    run(op, name_of(a), e);
    return out.object;
}

constexpr int64_t kGatedRow = 32;  // the most that kernels of gated units take at a step

void run_gated(const TensorView& out, const TensorView& a, const TensorView& b, int act, double p0, double p1) {
    constexpr const char* op = "gated";
    const Activation id = checked_activation(op, act);
    check_tensors(op, {{"out", out}}, {{"a", a}, {"b", b}}, true);
    if (driver::launches_on(out.device)) {
#ifdef NK_HAVE_ACTIVATION_CUDA
        return cuda::gated(out, a, b, {id, p0, p1});
#else
        fail_device(op, out);
#endif
    }
    Elementwise e = elementwise(Pass::gated, id, p0, p1, out);
    e.long_row = kGatedRow;
    e.ins = 2;
    e.tensor[0] = &out;
    e.tensor[1] = &a;
    e.tensor[2] = &b;
    run(op, name_of(id), e);
}

void gated(py::handle out_, py::handle a_, py::handle b_, int act, double p0, double p1) {
    const Argument out(out_, "gated", "out", driver::Contents::unset), a(a_, "gated", "a"), b(b_, "gated", "b");
    run_gated(out, a, b, act, p0, p1);
}

void run_gated_backward(const TensorView& ga, const TensorView& gb, const TensorView& g, const TensorView& a,
                        const TensorView& b, int act, double p0, double p1) {
    constexpr const char* op = "gated_backward";
    const Activation id = checked_activation(op, act);
    check_tensors(op, {{"ga", ga}, {"gb", gb}}, {{"g", g}, {"a", a}, {"b", b}}, false);
    if (driver::launches_on(ga.device)) {
#ifdef NK_HAVE_ACTIVATION_CUDA
        return cuda::gated_backward(ga, gb, g, a, b, {id, p0, p1});
#else
        fail_device(op, ga);
#endif
    }
    Elementwise e = elementwise(Pass::gated_backward, id, p0, p1, ga);
    e.long_row = kGatedRow;
    e.outs = 2;
    e.ins = 3;
    e.tensor[0] = &ga;
    e.tensor[1] = &gb;
    e.tensor[2] = &g;
    e.tensor[3] = &a;
    e.tensor[4] = &b;
    run(op, name_of(id), e);
}

void gated_backward(py::handle ga_, py::handle gb_, py::handle g_, py::handle a_, py::handle b_, int act, double p0,
                    double p1) {
    constexpr const char* op = "gated_backward";
    const Argument ga(ga_, op, "ga", driver::Contents::unset), gb(gb_, op, "gb", driver::Contents::unset),
        g(g_, op, "g"), a(a_, op, "a"), b(b_, op, "b");
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
    run_gated(Argument(object, "glu", "out", driver::Contents::unset), in.a, in.b, act, 0, 0);
    return object;
}

py::object glu_backward(py::handle g_, py::handle x_, int dim, int act, bool first) {
    const Argument g(g_, "glu_backward", "g"), x(x_, "glu_backward", "x");
    const py::object object = steal(new_like(x_.ptr(), x));
    const Argument gx(object, "glu_backward", "gx", driver::Contents::unset);
    const Halves in("glu_backward", x, dim, first), out("glu_backward", gx, dim, first);
    run_gated_backward(out.a, out.b, g, in.a, in.b, act, 0, 0);
    return object;
}

void run_prelu(const char* op, const TensorView& out, const TensorView& x, const TensorView& w) {
    check_tensors(op, {{"out", out}}, {{"x", x}, {"weight", w}}, true);
    if (driver::launches_on(out.device)) {
#ifdef NK_HAVE_ACTIVATION_CUDA
        return cuda::prelu(out, x, w);
#else
        fail_device(op, out);
#endif
    }
    const cpu::Table& t = cpu::table();
    Elementwise e{t.activation.prelu[static_cast<int>(out.dtype)],
                  1,
                  2,
                  {0, 0},
                  cost_of(Activation::relu, Pass::backward, out.dtype, t.level),
                  {&out, &x, &w}};
    e.reads_one = true;
    e.soon = true;  // with a gradient, too, nothing was lost by it
    run(op, "prelu", e);
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

}  // namespace

void as_channels(const char* op, TensorView& w, const TensorView& x) {
    const bool one = w.ndim < 2 && w.numel() == 1;
    if (!one && (w.ndim != 1 || x.ndim < 2 || w.shape[0] != x.shape[1]))
        fail_runtime(op, "argument weight has shape ", shape_string(w), ", expected 1 element or the size of dim 1 of ",
                     shape_string(x));
    const int64_t step = one ? 0 : w.stride[0];
    w.ndim = x.ndim;
    for (int d = 0; d < x.ndim; ++d) w.shape[d] = x.shape[d], w.stride[d] = d == 1 ? step : 0;
}

namespace {

void math_function(const std::string& name, py::handle out_, py::handle x_) {
    constexpr const char* op = "math";
    const Argument out(out_, op, "out"), x(x_, op, "x");
    check_tensors(op, {{"out", out}}, {{"x", x}}, true);
    if (out->device.kind != Device::cpu)
        fail_runtime(op, "argument out is on ", to_string(out->device), ", expected cpu");
    for (int f = 0; f < cpu::kMathFunctions; ++f) {
        if (name != cpu::kMathNames[f]) continue;
        const auto kernel = cpu::table().activation.math[f][static_cast<int>(out->dtype)];
        return run(op, cpu::kMathNames[f], {kernel, 1, 1, {0, 0}, 1.0, {&out.view, &x.view}});
    }
    fail_value(op, "argument name is '", name, "', expected exp, expm1, log, log1p, tanh, erf or sigmoid");
}

}  // namespace

void register_activation(py::module_& m) {
    using py::arg;
    def_native<&unary, 2>(m, "unary", arg("out").none(true), arg("x"), arg("act"), arg("p0") = 0.0, arg("p1") = 0.0,
                          "out = act(x); out may be x itself; None: a new tensor. Returns out.");
    def_native<&unary_recorded, 2>(m, "unary_recorded", arg("out").none(true), arg("x"), arg("act"), arg("p0") = 0.0,
                                   arg("p1") = 0.0,
                                   "As unary; or (out, kept) where the backward pass has a use for what was kept.");
    def_native<&unary_backward, 3>(
        m, "unary_backward", arg("out"), arg("g"), arg("x"), arg("act"), arg("p0") = 0.0, arg("p1") = 0.0,
        arg("kept") = py::none(),
        "out = g * act'(x), as unary; out may be g or x itself; kept: by unary_recorded, from the same x.");
    m.def("unary_backward2", &unary_backward2, arg("out"), arg("gg"), arg("g"), arg("x"), arg("act"), arg("p0") = 0.0,
          arg("p1") = 0.0, "out = gg * g * act''(x), as unary.");
    m.def("gated", &gated, arg("out"), arg("a"), arg("b"), arg("act"), arg("p0") = 0.0, arg("p1") = 0.0,
          "out = act(a) * b.");
    m.def("gated_backward", &gated_backward, arg("ga"), arg("gb"), arg("g"), arg("a"), arg("b"), arg("act"),
          arg("p0") = 0.0, arg("p1") = 0.0, "ga = g * b * act'(a), gb = g * act(a).");
    def_native<&glu>(m, "glu", arg("x"), arg("dim"), arg("act"), arg("first"),
                     "A new tensor: act(one half of x along dim) * the other; first: act is on the first half.");
    def_native<&glu_backward>(m, "glu_backward", arg("g"), arg("x"), arg("dim"), arg("act"), arg("first"),
                              "A new tensor: the gradient of glu for x.");
    def_native<&prelu>(m, "prelu", arg("out"), arg("x"), arg("w"),
                       "out = x where x > 0, else w * x, as unary; w has one value, or one for each index of dim 1.");
    m.def("rrelu", &rrelu, arg("out"), arg("x"), arg("noise"),
          "out = x where x > 0, else noise * x, as unary; noise has x's shape.");
    m.def(
        "prelu_backward", &prelu_backward, arg("gx"), arg("gw").none(true), arg("g"), arg("x"), arg("w"),
        arg("workspace") = py::none(),
        "gx = g where x > 0, else w * g; gw: sums of x * g where x <= 0, one for each index of dim 1, or one in all.");
    def_native<&prelu_gradients>(m, "prelu_gradients", arg("out").none(true), arg("g"), arg("x"), arg("weight"),
                                 "(gx, gw) of prelu in new tensors, with the layout of x and contiguous; out: None.");
    m.def("math", &math_function, arg("name"), arg("out"), arg("x"),
          "out = exp, expm1, log, log1p, tanh, erf or sigmoid of x on the CPU, for tests of accuracy.");
}

}  // namespace nk
