#include "tensor/view.h"

#include "tensor/check.h"

namespace nk {

std::string to_string(Device device) { return device.kind == Device::cpu ? "cpu" : concat("cuda:", device.index); }

std::string shape_string(const TensorView& t) { return shape_string(t.shape, t.ndim); }

std::string shape_string(const int64_t* sizes, int ndim) {
    std::ostringstream s;
    s << '[';
    for (int i = 0; i < ndim; ++i) s << (i ? ", " : "") << sizes[i];
    s << ']';
    return s.str();
}

}  // namespace nk
