#include "tensor/scratch.h"

#include <pybind11/pytypes.h>

#include "tensor/allocate.h"
#include "tensor/read.h"

namespace nk {

Scratch allocate_scratch(const TensorView& like, int64_t bytes) {
    const int64_t elements = (bytes + size_of(like.dtype) - 1) / size_of(like.dtype);
    Scratch s;
    s.owner = {new_tensor(like, &elements, 1), [](void* tensor) { Py_DECREF(static_cast<PyObject*>(tensor)); }};
    TensorView view;
    read_tensor(s.owner.get(), "scratch", "memory", view);
    s.memory = std::make_shared<HostMemory>(view, Contents::unset);
    s.data = view.data;
    s.bytes = elements * size_of(like.dtype);
    return s;
}

}  // namespace nk
