// Elementwise activations, their derivatives, gated units and PReLU: check, then run on the CPU or launch on CUDA.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "activation_cuda.h"
#include "activation_parameter.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "cpu/runs.h"
#include "cpu/table.h"
#include "elementwise.h"
#include "prelu.h"
#include "register.h"

namespace nk {

namespace {

using cpu::Elementwise;
using cpu::Pass;

// Nanoseconds per element in cache; what matters is only the order of magnitude.
double cost_of(Activation a, Pass pass, DType dtype, cpu::Level level) {
    const bool from_output = pass == Pass::backward_from_output || pass == Pass::backward2_from_output;
    const bool cheap = from_output || is_cheap(a);
    double cost = cheap ? 0.15 : 0.3;
    if (pass != Pass::forward) cost *= 1.5;
    if (dtype == DType::f64) cost *= 2;
    if (level == cpu::Level::scalar) cost *= cheap ? 4 : 30;
    return cost;
}

void run_on_processor(const char* op, const char* kernel, const Elementwise& e) {
    const int64_t n = e.tensor[0]->numel();
    if (n == 0) return;
    const bool plain = cpu::is_plain(e);
    run_on_cpu(
        op, kernel, static_cast<double>(n) * e.cost,
        [&] {
            return concat(cpu::name_of(cpu::table().level), plain ? ", contiguous, " : ", strided, ",
                          cpu::threads_for(n, e.cost), " threads");
        },
        [&] { plain ? cpu::run_plain(e, n) : cpu::run_strided(e); });
}

Elementwise elementwise(Pass pass, Activation a, double p0, double p1, DType dtype,
                        std::initializer_list<const TensorView*> outs, std::initializer_list<const TensorView*> ins) {
    const cpu::Table& t = cpu::table();
    const auto kernel = t.activation.run[static_cast<int>(pass)][static_cast<int>(a)][static_cast<int>(dtype)];
    Elementwise e{kernel,   static_cast<int>(outs.size()),    static_cast<int>(ins.size()),
                  {p0, p1}, cost_of(a, pass, dtype, t.level), {}};
    std::copy(ins.begin(), ins.end(), std::copy(outs.begin(), outs.end(), e.tensor));
    return e;
}

// x into y, which may be x itself; bits: see Bits.
void run_unary(const Call& call, PyObject* object, const TensorView& y, const TensorView& x, Activation a, double p0,
               double p1, unsigned char* bits = nullptr) {
    p0 = rounded(a, p0, x.dtype, false);
    run(
        call, y.device, {object},
        [&] {
            Elementwise e = elementwise(Pass::forward, a, p0, p1, y.dtype, {&y}, {&x});
            e.soon = !call.recorded && bits == nullptr;
            if (bits != nullptr)
                e.bits = bits,
                e.kernel = cpu::table().activation.keeping[static_cast<int>(a)][static_cast<int>(y.dtype)];
            run_on_processor("unary", name_of(a), e);
        },
        [&] { cuda::unary(y, x, {a, p0, p1}); });
}

Output like_input(const Call& call, const char* name, const Input& x, Activation a) {
    if (a == Activation::logsigmoid) return Output(call, name, x, x->shape, x->ndim);  // contiguous, as torch's
    return Output(call, name, x);
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

// Recorded: with Bits, or None.
py::object into_new(const Call& call, Input& x, Activation a, double p0, double p1) {
    check_floating(x);
    Output y = like_input(call, "y", x, a);
    if (!call.recorded) return run_unary(call, y.object.ptr(), y, x, a, p0, p1), y.object;
    const int64_t n = x->numel();
    const bool keeps = cpu::table().activation.keeping[static_cast<int>(a)][0] != nullptr && n >= Bits::kFrom &&
                       x->is_contiguous() && runs_on_processor(x->device) &&
                       rounded(a, p0, x->dtype, true) == rounded(a, p0, x->dtype, false);
    if (!keeps) return run_unary(call, y.object.ptr(), y, x, a, p0, p1), py::make_tuple(y.object, py::none());
    const py::capsule kept = Bits::make(a, x, n);
    run_unary(call, y.object.ptr(), y, x, a, p0, p1, kept.get_pointer<Bits>()->data());
    return py::make_tuple(y.object, kept);
}

py::object unary(const Call& call, Input& x, ActivationName a, double p0, double p1) {
    return into_new(call, x, a, p0, p1);
}

py::object unary_from_output(const Call& call, Input& x, ActivationName a, double p0, double p1) {
    check_from_output(call, a);
    return into_new(call, x, a, p0, p1);
}

py::object unary_in_place(const Call& call, Input& x, ActivationName a, double p0, double p1) {
    check_floating(x);
    check_writable(call.op, x.name, x);
    run_unary(call, x.object, x, x, a, p0, p1);
    return py::reinterpret_borrow<py::object>(x.object);
}

// t: the input, or the output where that tells the derivative.
py::object first(const Call& call, Input& g, Input& t, Activation a, double p0, double p1, const Kept& kept,
                 bool from_output) {
    check_floating(t);
    check_like(g, t);
    if (from_output) check_from_output(call, a);
    p0 = rounded(a, p0, t->dtype, true);
    Output gx(call, "gx", t);
    run(
        call, t->device, {gx.object.ptr()},
        [&] {
            Elementwise e = elementwise(from_output ? Pass::backward_from_output : Pass::backward, a, p0, p1, t->dtype,
                                        {&gx.view}, {&g.view, &t.view});
            if (Bits* bits = Bits::of(kept.object, a, gx, g)) {
                e.kernel = cpu::table().activation.kept[static_cast<int>(a)][static_cast<int>(t->dtype)];
                e.ins = 1;
                e.bits = bits->data();
            }
            run_on_processor("unary_backward", name_of(a), e);
        },
        [&] {
            from_output ? cuda::unary_backward_from_output(gx, g, t, {a, p0, p1})
                        : cuda::unary_backward(gx, g, t, {a, p0, p1});
        });
    return gx.object;
}

py::object unary_backward(const Call& call, Input& g, Input& x, ActivationName a, double p0, double p1, Kept kept) {
    return first(call, g, x, a, p0, p1, kept, false);
}

py::object unary_from_output_backward(const Call& call, Input& g, Input& y, ActivationName a, double p0, double p1,
                                      Kept kept) {
    return first(call, g, y, a, p0, p1, kept, true);
}

// (gg * f', gg * g * f''): the gradients of unary_backward, of x or of the output.
py::object second(const Call& call, Input& gg, Input& g, Input& x, Activation a, double p0, double p1, Wants wants,
                  bool from_output) {
    check_floating(x);
    check_like(g, x);
    check_like(gg, x);
    if (from_output) check_from_output(call, a);
    p0 = rounded(a, p0, x->dtype, true);
    py::object dg = py::none(), dx = py::none();
    TensorView dg_view, dx_view;
    driver::HostMemory memory[2];
    const auto make = [&](bool wanted, py::object& object, TensorView& view, driver::HostMemory& m) {
        if (!wanted) return;
        Output made(call, "gradient", x);
        object = made.object, view = made.view, m = std::move(made.memory);
    };
    make(wants[0], dg, dg_view, memory[0]);
    make(wants[1], dx, dx_view, memory[1]);
    run(
        call, x->device, {dg.ptr(), dx.ptr()},
        [&] {
            if (wants[0])
                run_on_processor("unary_backward", name_of(a),
                                 elementwise(from_output ? Pass::backward_from_output : Pass::backward, a, p0, p1,
                                             x->dtype, {&dg_view}, {&gg.view, &x.view}));
            if (wants[1])
                run_on_processor("unary_backward2", name_of(a),
                                 elementwise(from_output ? Pass::backward2_from_output : Pass::backward2, a, p0, p1,
                                             x->dtype, {&dx_view}, {&gg.view, &g.view, &x.view}));
        },
        [&] {
            const cuda::Act act{a, p0, p1};
            if (wants[0])
                from_output ? cuda::unary_backward_from_output(dg_view, gg, x, act)
                            : cuda::unary_backward(dg_view, gg, x, act);
            if (wants[1])
                from_output ? cuda::unary_backward2_from_output(dx_view, gg, g, x, act)
                            : cuda::unary_backward2(dx_view, gg, g, x, act);
        });
    return py::make_tuple(dg, dx);
}

py::object unary_backward2(const Call& call, Input& gg, Input& g, Input& x, ActivationName a, double p0, double p1,
                           Wants wants) {
    return second(call, gg, g, x, a, p0, p1, wants, false);
}

py::object unary_from_output_backward2(const Call& call, Input& gg, Input& g, Input& y, ActivationName a, double p0,
                                       double p1, Wants wants) {
    return second(call, gg, g, y, a, p0, p1, wants, true);
}

constexpr int64_t kGatedRow = 32;  // the most that kernels of gated units take at a step

// A gated unit: which activation, and whether it is on the first half.
struct GatedUnit {
    const char* name;
    Activation activation;
    bool first;
};
constexpr GatedUnit kGatedUnits[] = {{"glu", Activation::sigmoid, false},
                                     {"swiglu", Activation::silu, true},
                                     {"geglu", Activation::gelu, true},
                                     {"geglu_tanh", Activation::gelu_tanh, true},
                                     {"reglu", Activation::relu, true}};
constexpr int kGatedUnitCount = 5;
inline constexpr const char* kGatedNames[kGatedUnitCount] = {"glu", "swiglu", "geglu", "geglu_tanh", "reglu"};
using GatedName = NameOf<int, kGatedUnitCount, kGatedNames>;

// The two halves of a tensor along dim: what the activation is applied to, and what it gates.
struct Halves {
    TensorView a, b;

    Halves(const char* op, const TensorView& x, int dim, bool first) : a(x), b(x) {
        if (x.shape[dim] % 2 != 0)
            fail_runtime(op, "argument input has shape ", shape_string(x), ", expected an even size in dimension ",
                         dim);
        a.shape[dim] = b.shape[dim] = x.shape[dim] / 2;
        TensorView& second = first ? b : a;
        if (second.data != nullptr)
            second.data = static_cast<char*>(x.data) + x.shape[dim] / 2 * x.stride[dim] * size_of(x.dtype);
    }
};

// The output lies as torch's would: as a half of x does.
void* new_half(PyObject* object, const TensorView& x, int dim, const TensorView& half) {
    if (x.is_contiguous()) return new_tensor(x, half.shape, x.ndim);
    return new_like(py::handle(object).attr("narrow")(dim, 0, half.shape[dim]).ptr(), half);
}

int checked_half(const Call& call, const Input& x, int64_t dim) {
    if (x->ndim == 0) call.fail("argument input has shape [], expected at least 1 dimension");
    return checked_dim(call, dim, x);
}

py::object glu(const Call& call, Input& x, int64_t along, GatedName kind) {
    check_floating(x);
    const int dim = checked_half(call, x, along);
    const GatedUnit& unit = kGatedUnits[kind];
    const Halves in(call.op, x, dim, unit.first);
    Output y(call, "y", new_half(x.object, x, dim, in.a));
    run(
        call, x->device, {y.object.ptr()},
        [&] {
            Elementwise e = elementwise(Pass::gated, unit.activation, 0, 0, x->dtype, {&y.view}, {&in.a, &in.b});
            e.long_row = kGatedRow;
            run_on_processor("gated", name_of(unit.activation), e);
        },
        [&] { cuda::gated(y, in.a, in.b, {unit.activation, 0, 0}); });
    return y.object;
}

// Both halves' gradients, in the halves of one tensor.
py::object glu_backward(const Call& call, Input& g, Input& x, int64_t along, GatedName kind) {
    check_floating(x);
    check_kind(g, x);
    const int dim = checked_half(call, x, along);
    const GatedUnit& unit = kGatedUnits[kind];
    Output gx(call, "gx", x);
    const Halves in(call.op, x, dim, unit.first), out(call.op, gx, dim, unit.first);
    check_same_shape(call.op, g.name, g, "input's halves", in.a);
    run(
        call, x->device, {gx.object.ptr()},
        [&] {
            Elementwise e = elementwise(Pass::gated_backward, unit.activation, 0, 0, x->dtype, {&out.a, &out.b},
                                        {&g.view, &in.a, &in.b});
            e.long_row = kGatedRow;
            run_on_processor("gated_backward", name_of(unit.activation), e);
        },
        [&] { cuda::gated_backward(out.a, out.b, g, in.a, in.b, {unit.activation, 0, 0}); });
    return gx.object;
}

void run_prelu(const Call& call, Output& y, const Input& x, const Input& w) {
    run(
        call, x->device, {y.object.ptr()},
        [&] {
            const cpu::Table& t = cpu::table();
            Elementwise e{t.activation.prelu[static_cast<int>(x->dtype)],
                          1,
                          2,
                          {0, 0},
                          cost_of(Activation::relu, Pass::backward, x->dtype, t.level),
                          {&y.view, &x.view, &w.view}};
            e.reads_one = true;
            e.soon = true;  // with a gradient, too, nothing was lost by it
            run_on_processor(call.entry(), "prelu", e);
        },
        [&] { cuda::prelu(y, x, w); });
}

py::object prelu(const Call& call, Input& x, Input& w) {
    check_floating(x);
    check_kind(w, x);
    as_channels(call.op, w.view, x);
    Output y(call, "y", x);
    run_prelu(call, y, x, w);
    return y.object;
}

py::object rrelu(const Call& call, Input& x, Input& noise) {
    check_floating(x);
    check_like(noise, x);
    Output y(call, "y", x, x->shape, x->ndim);  // contiguous, as torch's
    run_prelu(call, y, x, noise);
    return y.object;
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

constexpr int kMath = cpu::kMathFunctions;
using MathName = NameOf<int, kMath, cpu::kMathNames>;

py::object math_function(const Call& call, Input& x, MathName function) {
    check_floating(x);
    if (x->device.kind != Device::cpu) call.fail("argument x is on ", to_string(x->device), ", expected cpu");
    Output y(call, "y", x);
    const auto kernel = cpu::table().activation.math[function][static_cast<int>(x->dtype)];
    run_on_processor(call.entry(), cpu::kMathNames[function], {kernel, 1, 1, {0, 0}, 1.0, {&y.view, &x.view}});
    return y.object;
}

}  // namespace

void register_activation(py::module_& m) {
    py::dict table;
    for (int i = 0; i < kActivations; ++i)
        table[kActivationNames[i]] = py::make_tuple(i, kActivationParameters[i], kActivationFromOutput[i]);
    m.attr("ACTIVATIONS") = table;

    def_entry<&unary>(m, "unary", "input act p0 p1", "act(input), elementwise, laid out as torch's.");
    def_entry<&unary_backward, 1>(m, "unary_backward", "g input act p0 p1 kept",
                                  "g * act'(input); kept: what unary returned besides when it was recorded.");
    def_entry<&unary_backward2>(m, "unary_backward2", "gg g input act p0 p1 wants",
                                "The gradients of unary_backward to g and input.", "tuple[Tensor | None, ...]");
    def_entry<&unary_from_output>(m, "unary_from_output", "input act p0 p1",
                                  "As unary, of an activation whose output tells its derivative.");
    def_entry<&unary_from_output_backward, 1>(m, "unary_from_output_backward", "g y act p0 p1 kept",
                                              "g * act', told by the output y.");
    def_entry<&unary_from_output_backward2>(m, "unary_from_output_backward2", "gg g y act p0 p1 wants",
                                            "The gradients of unary_from_output_backward to g and y.",
                                            "tuple[Tensor | None, ...]");
    def_entry<&unary_in_place>(m, "unary_", "input act p0 p1", "input = act(input), which is returned.");
    def_entry<&glu>(m, "glu", "input dim kind", "act(one half of input along dim) * the other.");
    def_entry<&glu_backward>(m, "glu_backward", "g input dim kind", "The gradient of glu.");
    def_entry<&prelu>(
        m, "prelu", "input weight",
        "input where it is > 0, else weight * input; weight has one value, or one for each index of dim 1.");
    def_entry<&prelu_backward>(m, "prelu_backward", "g input weight wants",
                               "The gradients of prelu to input and weight.", "tuple[Tensor | None, ...]");
    def_entry<&rrelu>(m, "rrelu", "input noise", "input where it is > 0, else noise * input, contiguous.");
    def_entry<&rrelu_backward>(m, "rrelu_backward", "g input noise wants", "The gradient of rrelu to input, and None.",
                               "tuple[Tensor | None, ...]");
    def_entry<&math_function>(m, "math", "x name",
                              "exp, expm1, log, log1p, tanh, erf or sigmoid of x on the CPU, for tests of accuracy.");
}

}  // namespace nk
