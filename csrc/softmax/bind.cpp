// softmax, log_softmax and softmin over one dim, and their gradients: check, then run on the CPU or launch on CUDA.
#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "softmax/problem.h"

namespace nk {

namespace {

using Kind = NameOf<cpu::SoftmaxKind, 3, kSoftmaxNames>;

py::object softmax(const Call& call, Input& x, int64_t along, Kind kind) {
    check_floating(x);
    const int dim = checked_dim(call, along, x);
    Output y(call, "y", x, x->shape, x->ndim);  // contiguous, as torch's
    run(
        call, y->device, {y.object.ptr()}, [&] { cpu::softmax(call.entry(), {&y.view, &x.view}, dim, kind); },
        [&] { cuda::softmax(y, x, dim, kind); });
    return y.object;
}

py::object softmax_backward(const Call& call, Input& g, Input& y, int64_t along, Kind kind) {
    check_floating(y);
    check_like(g, y);
    const int dim = checked_dim(call, along, y);
    Output gx(call, "gx", y, y->shape, y->ndim);
    run(
        call, gx->device, {gx.object.ptr()},
        [&] { cpu::softmax(call.entry(), {&gx.view, &y.view, &g.view}, dim, kind); },
        [&] { cuda::softmax_backward(gx, g, y, dim, kind); });
    return gx.object;
}

}  // namespace

void register_softmax(py::handle m) {
    def_entry<&softmax>(m, "softmax", "input dim kind", "softmax, log_softmax or softmin of x along dim, contiguous.");
    def_entry<&softmax_backward>(m, "softmax_backward", "g y dim kind", "The gradient of softmax from its output y.");
}

}  // namespace nk
