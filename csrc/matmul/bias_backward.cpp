// activation_bias_backward: check, then hand on to the backend of the tensors' device.
#include "driver/launch.h"
#include "kernels/activation.h"
#include "matmul/bind.h"
#include "matmul/call.h"
#include "tensor/arguments.h"
#include "tensor/check.h"

namespace py = pybind11;

namespace nk {

namespace {

void check(const ActivationBiasBackwardCall& c) {
    constexpr const char* op = "activation_bias_backward";
    check_floating(op, "g", c.g);
    if (c.activation < 0 || c.activation >= kActivations)
        fail_value(op, "argument act is ", c.activation, ", expected an id in [0, ", kActivations, ")");
    if (c.g.ndim != 2) fail_runtime(op, "argument g has shape ", shape_string(c.g), ", expected [M, N]");
    if (c.z) check_like(op, "z", *c.z, "g", c.g);
    if (!c.z && c.activation != static_cast<int>(Activation::identity))
        fail_runtime(op, "argument z is None, expected the preactivation of ",
                     name_of(static_cast<Activation>(c.activation)));
    if (c.gz) {
        check_like(op, "gz", *c.gz, "g", c.g);
        check_writable(op, "gz", *c.gz);
        check_no_overlap(op, "gz", *c.gz, "g", c.g, true);
        if (c.z) check_no_overlap(op, "gz", *c.gz, "z", *c.z, true);
    }
    if (c.gb) {
        check_same_dtype(op, "gb", *c.gb, "g", c.g);
        check_same_device(op, "gb", *c.gb, "g", c.g);
        if (c.gb->ndim != 1 || c.gb->shape[0] != c.g.shape[1])
            fail_runtime(op, "argument gb has shape ", shape_string(*c.gb), ", expected [", c.g.shape[1], "]");
        check_writable(op, "gb", *c.gb);
        check_no_overlap(op, "gb", *c.gb, "g", c.g, false);
        if (c.z) check_no_overlap(op, "gb", *c.gb, "z", *c.z, false);
        if (c.gz) check_no_overlap(op, "gb", *c.gb, "gz", *c.gz, false);
    }
}

void activation_bias_backward(py::handle gz, py::handle gb, py::handle g, py::handle z, int act, double p0, double p1) {
    constexpr const char* op = "activation_bias_backward";
    const OptionalArgument oz(gz, op, "gz", Contents::unset), ob(gb, op, "gb", Contents::unset);
    const Argument x(g, op, "g");
    const OptionalArgument y(z, op, "z");
    run_activation_bias_backward({oz.get(), ob.get(), x.view, y.get(), act, {p0, p1}});
}

}  // namespace

void run_activation_bias_backward(const ActivationBiasBackwardCall& call) {
    check(call);
    driver::launches_on(call.g.device) ? cuda::activation_bias_backward(call) : cpu::activation_bias_backward(call);
}

void register_bias_backward(py::module_& m) {
    m.def("activation_bias_backward", &activation_bias_backward, py::arg("gz"), py::arg("gb"), py::arg("g"),
          py::arg("z"), py::arg("act"), py::arg("p0"), py::arg("p1"),
          "gz = g * act'(z) and gb = its column sums, in one pass; gz and gb may be None.");
}

}  // namespace nk
