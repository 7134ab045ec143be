// activation_bias_backward: check, then hand on to the backend of the tensors' device.
#include "../kernels/activation.h"
#include "check.h"
#include "driver/launch.h"
#include "matmul.h"
#include "register.h"
#include "tensor_caster.h"
#if __has_include("activation_cuda.h")
#include "activation_cuda.h"
#endif

namespace py = pybind11;

namespace nk {

namespace {

#if __has_include("activation_cuda.h")
void launch_cuda(const TensorView* gz, const TensorView* gb, const TensorView& g, const TensorView* z, int act,
                 double p0, double p1) {
    const cuda::Act a{static_cast<Activation>(act), p0, p1};
    const int64_t bytes = gb ? cuda::activation_bias_backward_workspace(gz, g, z, a) : 0;
    if (bytes == 0) return cuda::activation_bias_backward(gz, gb, g, z, a, nullptr);
    const int64_t elements = (bytes + size_of(g.dtype) - 1) / size_of(g.dtype);
    const auto memory = py::reinterpret_steal<py::object>(static_cast<PyObject*>(new_tensor(g, &elements, 1)));
    const Argument workspace(memory, "activation_bias_backward", "workspace", driver::Contents::unset);
    cuda::activation_bias_backward(gz, gb, g, z, a, &workspace.view);
}
#endif

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
    const OptionalArgument oz(gz, op, "gz", driver::Contents::unset), ob(gb, op, "gb", driver::Contents::unset);
    const Argument x(g, op, "g");
    const OptionalArgument y(z, op, "z");
    run_activation_bias_backward({oz.get(), ob.get(), x.view, y.get(), act, {p0, p1}});
}

}  // namespace

void run_activation_bias_backward(const ActivationBiasBackwardCall& call) {
    check(call);
#if __has_include("activation_cuda.h")
    if (driver::launches_on(call.g.device))
        return launch_cuda(call.gz, call.gb, call.g, call.z, call.activation, call.p[0], call.p[1]);
#endif
    if (call.g.device.kind != Device::cpu)
        fail_runtime("activation_bias_backward", "argument g is on ", to_string(call.g.device),
                     ", expected cpu: built without CUDA");
    activation_bias_backward_cpu(call);
}

void register_activation_bias(py::module_& m) {
    m.def("activation_bias_backward", &activation_bias_backward, py::arg("gz"), py::arg("gb"), py::arg("g"),
          py::arg("z"), py::arg("act"), py::arg("p0"), py::arg("p1"),
          "gz = g * act'(z) and gb = its column sums, in one pass; gz and gb may be None.");
}

}  // namespace nk
