// Elementwise activations and their derivatives.
#include <cstdlib>
#include <new>

#include "activation/bind.h"
#include "activation/cpu.h"
#include "activation/cuda.h"
#include "activation/parameter.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "cpu/table.h"

namespace nk {

namespace {

using cpu::Elementwise;
using cpu::Pass;

// x into y, which may be x itself; bits: see Bits.
void run_unary(const Call& call, PyObject* object, const TensorView& y, const TensorView& x, Activation a, double p0,
               double p1, unsigned char* bits = nullptr) {
    p0 = rounded(a, p0, x.dtype, false);
    run(
        call, y.device, {object},
        [&] {
            Elementwise e = elementwise(Pass::forward, a, p0, p1, y.dtype, {&y}, {&x});
            if (bits != nullptr)
                e.bits = bits,
                e.kernel = cpu::table().activation.keeping[static_cast<int>(a)][static_cast<int>(y.dtype)];
            cpu::run("unary", name_of(a), e);
        },
        [&] { cuda::unary(y, x, cuda::arguments(a, p0, p1)); });
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
        return fits && cpu::is_contiguous({nullptr, 1, 1, {}, 0, {&out, &g}}) ? b : nullptr;
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
            cpu::run("unary_backward", name_of(a), e);
        },
        [&] {
            from_output ? cuda::unary_backward_from_output(gx, g, t, cuda::arguments(a, p0, p1))
                        : cuda::unary_backward(gx, g, t, cuda::arguments(a, p0, p1));
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
    HostMemory memory[2];
    const auto make = [&](bool wanted, py::object& object, TensorView& view, HostMemory& m) {
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
                cpu::run("unary_backward", name_of(a),
                         elementwise(from_output ? Pass::backward_from_output : Pass::backward, a, p0, p1, x->dtype,
                                     {&dg_view}, {&gg.view, &x.view}));
            if (wants[1])
                cpu::run("unary_backward2", name_of(a),
                         elementwise(from_output ? Pass::backward2_from_output : Pass::backward2, a, p0, p1, x->dtype,
                                     {&dx_view}, {&gg.view, &g.view, &x.view}));
        },
        [&] {
            const auto act = cuda::arguments(a, p0, p1);
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

}  // namespace

void register_unary(py::handle m) {
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
}

}  // namespace nk
