// The activation family as Python knows it, and the table of activations.
#include "activation/bind.h"

#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "cpu/elementwise.h"
#include "cpu/table.h"

namespace nk {

namespace {

constexpr int kMath = cpu::kMathFunctions;
using MathName = NameOf<int, kMath, cpu::kMathNames>;

py::object math_function(const Call& call, Input& x, MathName function) {
    check_floating(x);
    if (x->device.kind != Device::cpu) call.fail("argument x is on ", to_string(x->device), ", expected cpu");
    Output y(call, "y", x);
    const auto kernel = cpu::table().activation.math[function][static_cast<int>(x->dtype)];
    cpu::run(call.entry(), cpu::kMathNames[function], {kernel, 1, 1, {0, 0}, 1.0, {&y.view, &x.view}});
    return y.object;
}

}  // namespace

void register_activation(py::handle m) {
    py::dict table;
    for (int i = 0; i < kActivations; ++i)
        table[kActivationNames[i]] = py::make_tuple(i, kActivationParameters[i], kActivationFromOutput[i]);
    m.attr("ACTIVATIONS") = table;

    register_unary(m);
    register_gated(m);
    register_prelu(m);
    def_entry<&math_function>(m, "math", "x name",
                              "exp, expm1, log, log1p, tanh, erf or sigmoid of x on the CPU, for tests of accuracy.");
}

}  // namespace nk
