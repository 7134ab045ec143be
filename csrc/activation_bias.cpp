// activation_bias_backward: check, then hand on to the backend of the tensors' device.
#include "../kernels/activation.h"
#include "check.h"
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
    const Argument workspace(memory, "activation_bias_backward", "workspace");
    cuda::activation_bias_backward(gz, gb, g, z, a, &workspace.view);
}
#endif

void activation_bias_backward(py::handle gz, py::handle gb, py::handle g, py::handle z, int act, double p0, double p1) {
    constexpr const char* op = "activation_bias_backward";
    const Argument x(g, op, "g");
    const OptionalArgument oz(gz, op, "gz"), ob(gb, op, "gb"), y(z, op, "z");
    check_floating(op, "g", x);
    if (act < 0 || act >= kActivations)
        fail_value(op, "argument act is ", act, ", expected an id in [0, ", kActivations, ")");
    if (x->ndim != 2) fail_runtime(op, "argument g has shape ", shape_string(x), ", expected [M, N]");
    if (y.present) check_like(op, "z", y.view, "g", x);
    if (!y.present && act != static_cast<int>(Activation::identity))
        fail_runtime(op, "argument z is None, expected the preactivation of ", name_of(static_cast<Activation>(act)));
    if (oz.present) {
        check_like(op, "gz", oz.view, "g", x);
        check_writable(op, "gz", oz.view);
        check_no_overlap(op, "gz", oz.view, "g", x, true);
        if (y.present) check_no_overlap(op, "gz", oz.view, "z", y.view, true);
    }
    if (ob.present) {
        check_same_dtype(op, "gb", ob.view, "g", x);
        check_same_device(op, "gb", ob.view, "g", x);
        if (ob.view.ndim != 1 || ob.view.shape[0] != x->shape[1])
            fail_runtime(op, "argument gb has shape ", shape_string(ob.view), ", expected [", x->shape[1], "]");
        check_writable(op, "gb", ob.view);
        check_no_overlap(op, "gb", ob.view, "g", x, false);
        if (y.present) check_no_overlap(op, "gb", ob.view, "z", y.view, false);
        if (oz.present) check_no_overlap(op, "gb", ob.view, "gz", oz.view, false);
    }
    const ActivationBiasBackwardCall call{oz.get(), ob.get(), x.view, y.get(), act, {p0, p1}};
#if __has_include("activation_cuda.h")
    if (x->device.kind == Device::cuda) return launch_cuda(oz.get(), ob.get(), x, y.get(), act, p0, p1);
#endif
    if (x->device.kind != Device::cpu)
        fail_runtime(op, "argument g is on ", to_string(x->device), ", expected cpu: built without CUDA");
    activation_bias_backward_cpu(call);
}

}  // namespace

void register_activation_bias(py::module_& m) {
    m.def("activation_bias_backward", &activation_bias_backward, py::arg("gz"), py::arg("gb"), py::arg("g"),
          py::arg("z"), py::arg("act"), py::arg("p0"), py::arg("p1"),
          "gz = g * act'(z) and gb = its column sums, in one pass; gz and gb may be None.");
}

}  // namespace nk
