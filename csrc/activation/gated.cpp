// Gated units: an activation of one half of a tensor times the other.
#include <iterator>

#include "activation/bind.h"
#include "activation/cpu.h"
#include "activation/cuda.h"
#include "call/kernel_entry.h"
#include "call/run.h"

namespace nk {

namespace {

using cpu::Elementwise;
using cpu::Pass;

constexpr int64_t kGatedRow = 32;  // the most that kernels of gated units take at a step

// A gated unit: which activation, and whether it is on the first half.
struct GatedUnit {
    const char* name;
    Activation activation;
    bool first;
};
#define NK_UNIT(name, activation, Op, first) {#name, Activation::activation, first},
constexpr GatedUnit kGatedUnits[] = {NK_GATED_UNITS(NK_UNIT)};
#undef NK_UNIT
#define NK_NAME(name, activation, Op, first) #name,
constexpr const char* kGatedNames[] = {NK_GATED_UNITS(NK_NAME)};
#undef NK_NAME
constexpr int kGatedUnitCount = static_cast<int>(std::size(kGatedUnits));
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
            cpu::run("gated", name_of(unit.activation), e);
        },
        [&] { cuda::gated(y, in.a, in.b, cuda::arguments(unit.activation, 0, 0)); });
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
            cpu::run("gated_backward", name_of(unit.activation), e);
        },
        [&] { cuda::gated_backward(out.a, out.b, g, in.a, in.b, cuda::arguments(unit.activation, 0, 0)); });
    return gx.object;
}

}  // namespace

void register_gated(py::handle m) {
    def_entry<&glu>(m, "glu", "input dim kind", "act(one half of input along dim) * the other.");
    def_entry<&glu_backward>(m, "glu_backward", "g input dim kind", "The gradient of glu.");
}

}  // namespace nk
