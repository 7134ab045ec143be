// PReLU and RReLU, whose slopes are a tensor; csrc/activation/prelu_cpu.cpp has the gradients' way on the CPU.
#include "activation/prelu.h"

#include "activation/bind.h"
#include "activation/cpu.h"
#include "activation/cuda.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "cpu/table.h"

namespace nk {

namespace {

void run_prelu(const Call& call, Output& y, const Input& x, const Input& w) {
    run(
        call, x->device, {y.object.ptr()},
        [&] {
            cpu::Elementwise e{cpu::table().activation.prelu[static_cast<int>(x->dtype)],
                               1,
                               2,
                               {0, 0},
                               cost_of(Activation::relu, cpu::Pass::backward, x->dtype),
                               {&y.view, &x.view, &w.view}};
            e.reads_one = true;
            cpu::run(call.entry(), "prelu", e);
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

void register_prelu(py::handle m) {
    def_entry<&prelu>(
        m, "prelu", "input weight",
        "input where it is > 0, else weight * input; weight has one value, or one for each index of dim 1.");
    def_entry<&prelu_backward>(m, "prelu_backward", "g input weight wants",
                               "The gradients of prelu to input and weight.", "tuple[Tensor | None, ...]");
    def_entry<&rrelu>(m, "rrelu", "input noise", "input where it is > 0, else noise * input, contiguous.");
    def_entry<&rrelu_backward>(m, "rrelu_backward", "g input noise wants", "The gradient of rrelu to input, and None.",
                               "tuple[Tensor | None, ...]");
}

}  // namespace nk
