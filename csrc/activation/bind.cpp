#include "activation/bind.h"

#include "bindings.h"
#include "kernels/activation.h"

namespace py = pybind11;

namespace nk {

void register_activation(py::module_& m) {
    py::dict ids;
    for (int i = 0; i < kActivations; ++i) ids[kActivationNames[i]] = i;
    m.attr("ACTIVATIONS") = ids;
    register_unary(m);
    register_gated(m);
    register_prelu(m);
}

}  // namespace nk
