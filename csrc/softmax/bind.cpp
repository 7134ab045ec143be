// softmax, log_softmax and softmin over one dim, and their gradients: check, then run on the CPU or launch on CUDA.
#include <algorithm>

#include "bindings.h"
#include "call/kernel_entry.h"
#include "driver/launch.h"
#include "softmax/call.h"
#include "tensor/arguments.h"
#include "tensor/check.h"

namespace nk {

namespace {

int checked_dim(const char* op, const TensorView& t, int dim) {
    const int bound = std::max(t.ndim, 1);
    if (dim < -bound || dim >= bound)
        fail_index(op, "argument dim is ", dim, ", expected ", -bound, " to ", bound - 1, " for shape ",
                   shape_string(t));
    return dim < 0 ? dim + bound : dim;
}

cpu::SoftmaxKind checked_kind(const char* op, int kind) {
    if (kind < 0 || kind > 2)
        fail_value(op, "argument kind is ", kind, ", expected 0 (softmax), 1 (log_softmax) or 2 (softmin)");
    return static_cast<cpu::SoftmaxKind>(kind);
}

py::object softmax(py::handle out_, py::handle x_, int dim, int kind) {
    constexpr const char* op = "softmax";
    const Argument x(x_, op, "x");
    const OutputArgument out(out_, op, "out", x, x->shape, x->ndim);  // contiguous, as torch's
    check_floating(op, "out", out);
    check_like(op, "x", x, "out", out);
    check_writable(op, "out", out);
    check_no_overlap(op, "out", out, "x", x, true);
    dim = checked_dim(op, out, dim);
    const cpu::SoftmaxKind checked = checked_kind(op, kind);
    if (driver::launches_on(out->device)) {
        cuda::softmax(out, x, dim, kind);
        return out.object;
    }
    cpu::softmax(out, x, dim, checked);
    return out.object;
}

py::object softmax_backward(py::handle gx_, py::handle g_, py::handle y_, int dim, int kind) {
    constexpr const char* op = "softmax_backward";
    const Argument g(g_, op, "g"), y(y_, op, "y");
    const OutputArgument gx(gx_, op, "gx", y, y->shape, y->ndim);
    check_floating(op, "gx", gx);
    check_like(op, "g", g, "gx", gx);
    check_like(op, "y", y, "gx", gx);
    check_writable(op, "gx", gx);
    check_no_overlap(op, "gx", gx, "g", g, true);
    check_no_overlap(op, "gx", gx, "y", y, true);
    dim = checked_dim(op, gx, dim);
    const cpu::SoftmaxKind checked = checked_kind(op, kind);
    if (driver::launches_on(gx->device)) {
        cuda::softmax_backward(gx, g, y, dim, kind);
        return gx.object;
    }
    cpu::softmax_backward(gx, g, y, dim, checked);
    return gx.object;
}

}  // namespace

void register_softmax(py::module_& m) {
    using py::arg;
    def_kernel<&softmax>(
        m, "softmax", arg("out"), arg("x"), arg("dim"), arg("kind"),
        "out = softmax (kind 0), log_softmax (1) or softmin (2) of x along dim; out may be x itself; None: a new "
        "tensor. Returns out.");
    def_kernel<&softmax_backward>(m, "softmax_backward", arg("gx"), arg("g"), arg("y"), arg("dim"), arg("kind"),
                                  "gx: the gradient of softmax from its output y, as softmax.");
}

}  // namespace nk
