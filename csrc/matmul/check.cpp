// What can be wrong with a product, and the backend of the tensors' device.
#include "tensor/check.h"

#include <utility>

#include "driver/launch.h"
#include "kernels/activation.h"
#include "matmul/call.h"

namespace nk {

namespace {

void check_activation(const char* op, int activation) {
    if (activation < 0 || activation >= kActivations)
        fail_value(op, "argument act is ", activation, ", expected an id in [0, ", kActivations, ")");
}

void check_operand(const char* op, const char* arg, const TensorView& t, const MatmulCall& c) {
    check_same_dtype(op, arg, t, "out", c.out);
    check_same_device(op, arg, t, "out", c.out);
    if (!c.fresh) check_no_overlap(op, "out", c.out, arg, t, false);
}

// a[..., M, K] and b[..., K, N] against out[..., M, N].
void check_shapes(const char* op, const MatmulCall& c) {
    const int nd = c.out.ndim;
    if (nd < 2) fail_runtime(op, "argument out has shape ", shape_string(c.out), ", expected at least 2 dimensions");
    for (const auto& [arg, t] : {std::pair{"a", &c.a}, std::pair{"b", &c.b}}) {
        bool right = t->ndim == nd;
        for (int i = 0; right && i < nd - 2; ++i) right = t->shape[i] == c.out.shape[i];
        if (!right)
            fail_runtime(op, "argument ", arg, " has shape ", shape_string(*t),
                         ", expected the batch dimensions of argument out, ", shape_string(c.out));
    }
    if (c.a.size(-2) != c.m())
        fail_runtime(op, "argument a has shape ", shape_string(c.a), ", expected [..., ", c.m(),
                     ", K] for argument out ", shape_string(c.out));
    if (c.b.size(-2) != c.k() || c.b.size(-1) != c.n())
        fail_runtime(op, "argument b has shape ", shape_string(c.b), ", expected [..., ", c.k(), ", ", c.n(),
                     "] for argument a ", shape_string(c.a), " and argument out ", shape_string(c.out));
}

void check(const MatmulCall& c) {
    constexpr const char* op = "matmul";
    check_floating(op, "out", c.out);
    check_shapes(op, c);
    check_activation(op, c.activation);
    check_operand(op, "a", c.a, c);
    check_operand(op, "b", c.b, c);
    check_writable(op, "out", c.out);
    if (c.bias) {
        check_operand(op, "bias", *c.bias, c);
        if (c.bias->ndim != 1 || c.bias->shape[0] != c.n())
            fail_runtime(op, "argument bias has shape ", shape_string(*c.bias), ", expected [", c.n(), "]");
    }
    if (c.residual) {
        check_operand(op, "residual", *c.residual, c);
        check_same_shape(op, "residual", *c.residual, "out", c.out);
    }
    if (c.preact) {
        check_operand(op, "preact", *c.preact, c);
        check_same_shape(op, "preact", *c.preact, "out", c.out);
        check_writable(op, "preact", *c.preact);
        for (const auto& [arg, t] :
             {std::pair{"a", &c.a}, std::pair{"b", &c.b}, std::pair{"bias", c.bias}, std::pair{"residual", c.residual}})
            if (t) check_no_overlap(op, "preact", *c.preact, arg, *t, false);
    }
}

}  // namespace

void run_matmul(const MatmulCall& call) {
    check(call);
    if (call.out.numel() == 0) return;
    driver::launches_on(call.out.device) ? cuda::matmul(call) : cpu::matmul(call);
}

}  // namespace nk
