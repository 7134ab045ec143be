#include "tensor/view.h"

#include "tensor/check.h"

namespace nk {

std::string to_string(Device device) { return device.kind == Device::cpu ? "cpu" : concat("cuda:", device.index); }

std::string shape_string(const TensorView& t) {
    std::ostringstream s;
    s << '[';
    for (int i = 0; i < t.ndim; ++i) s << (i ? ", " : "") << t.shape[i];
    s << ']';
    return s.str();
}

}  // namespace nk
