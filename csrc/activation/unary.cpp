// Elementwise activations and their derivatives: check, then run on the CPU or launch on CUDA.
#include <cstdlib>
#include <new>
#include <string>

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

py::object run_unary(py::handle out_, py::handle x_, const Argument& x, Activation a, double p0, double p1,
                     bool recorded) {
    constexpr const char* op = "unary";
    const OutputArgument out = a == Activation::logsigmoid
                                   ? OutputArgument(out_, op, "out", x, x->shape, x->ndim)  // contiguous, as torch's
                                   : OutputArgument(out_, op, "out", x_, x);
    check_tensors(op, {{"out", out}}, {{"x", x}}, true);
    if (driver::launches_on(out->device)) {
        cuda::unary(out, x, cuda::arguments(a, p0, p1));
        return out.object;
    }
    cpu::Elementwise e = cpu::elementwise(cpu::Pass::forward, a, p0, p1, out);
    e.ins = 1;
    e.tensor[0] = &out.view;
    e.tensor[1] = &x.view;
    e.soon = !recorded;
    cpu::run(op, name_of(a), e);
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
    cpu::Elementwise e = cpu::elementwise(cpu::Pass::forward, a, p0, p1, out);
    e.kernel = row[static_cast<int>(out->dtype)];
    e.ins = 1;
    e.tensor[0] = &out.view;
    e.tensor[1] = &x.view;
    e.bits = kept.get_pointer<Bits>()->data();
    cpu::run(op, name_of(a), e);
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
        cuda::unary_backward(out, g, x, cuda::arguments(a, p0, p1));
        return out.object;
    }
    cpu::Elementwise e = cpu::elementwise(cpu::Pass::backward, a, p0, p1, out);
    e.ins = 2;
    e.tensor[0] = &out.view;
    e.tensor[1] = &g.view;
    e.tensor[2] = &x.view;
    if (Bits* bits = Bits::of(kept, a, out, g)) {
        e.kernel = cpu::table().activation.kept[act][static_cast<int>(out->dtype)];
        e.ins = 1;
        e.bits = bits->data();
    }
    cpu::run(op, name_of(a), e);
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
        cuda::unary_backward2(out, gg, g, x, cuda::arguments(a, p0, p1));
        return out.object;
    }
    cpu::Elementwise e = cpu::elementwise(cpu::Pass::backward2, a, p0, p1, out);
    e.ins = 3;
    e.tensor[0] = &out.view;
    e.tensor[1] = &gg.view;
    e.tensor[2] = &g.view;
    e.tensor[3] = &x.view;
    cpu::run(op, name_of(a), e);
    return out.object;
}

void math_function(const std::string& name, py::handle out_, py::handle x_) {
    constexpr const char* op = "math";
    const Argument out(out_, op, "out"), x(x_, op, "x");
    check_tensors(op, {{"out", out}}, {{"x", x}}, true);
    if (out->device.kind != Device::cpu)
        fail_runtime(op, "argument out is on ", to_string(out->device), ", expected cpu");
    for (int f = 0; f < cpu::kMathFunctions; ++f) {
        if (name != cpu::kMathNames[f]) continue;
        const auto kernel = cpu::table().activation.math[f][static_cast<int>(out->dtype)];
        return cpu::run(op, cpu::kMathNames[f], {kernel, 1, 1, {0, 0}, 1.0, {&out.view, &x.view}});
    }
    fail_value(op, "argument name is '", name, "', expected exp, expm1, log, log1p, tanh, erf or sigmoid");
}

}  // namespace

void register_unary(py::module_& m) {
    using py::arg;
    def_kernel<&unary, 2>(m, "unary", arg("out").none(true), arg("x"), arg("act"), arg("p0") = 0.0, arg("p1") = 0.0,
                          "out = act(x); out may be x itself; None: a new tensor. Returns out.");
    def_kernel<&unary_recorded, 2>(m, "unary_recorded", arg("out").none(true), arg("x"), arg("act"), arg("p0") = 0.0,
                                   arg("p1") = 0.0,
                                   "As unary; or (out, kept) where the backward pass has a use for what was kept.");
    def_kernel<&unary_backward, 3>(
        m, "unary_backward", arg("out"), arg("g"), arg("x"), arg("act"), arg("p0") = 0.0, arg("p1") = 0.0,
        arg("kept") = py::none(),
        "out = g * act'(x), as unary; out may be g or x itself; kept: by unary_recorded, from the same x.");
    m.def("unary_backward2", &unary_backward2, arg("out"), arg("gg"), arg("g"), arg("x"), arg("act"), arg("p0") = 0.0,
          arg("p1") = 0.0, "out = gg * g * act''(x), as unary.");
    m.def("math", &math_function, arg("name"), arg("out"), arg("x"),
          "out = exp, expm1, log, log1p, tanh, erf or sigmoid of x on the CPU, for tests of accuracy.");
}

}  // namespace nk
