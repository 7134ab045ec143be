#include "cuda_hooks.h"

#include "check.h"

namespace py = pybind11;

namespace nk {

namespace {
// Never destroyed: the interpreter may be gone when statics are.
py::object& allocate = *new py::object();
py::object& tf32_allowed = *new py::object();

bool is_set(const py::object& hook) { return hook && !hook.is_none(); }
}  // namespace

Workspace::Workspace(int64_t bytes, Device device, const char* op) {
    if (!has_workspace()) return;
    tensor = allocate(bytes, device.index);
    TensorView view;
    read_tensor(tensor.ptr(), op, "workspace", view);
    if (!(view.device == device) || view.numel() * size_of(view.dtype) < bytes || !view.is_contiguous() ||
        reinterpret_cast<uintptr_t>(view.data) % 16 != 0)
        fail_runtime(op, "the workspace has shape ", shape_string(view), " on ", to_string(view.device), ", expected ",
                     bytes, " contiguous bytes on ", to_string(device));
    data = view.data;
}

bool has_workspace() { return is_set(allocate); }

bool allows_tf32() { return is_set(tf32_allowed) && tf32_allowed().cast<bool>(); }

void register_cuda_hooks(py::module_& m) {
    m.def(
        "set_cuda_hooks",
        [](py::object allocator, py::object tf32) { allocate = std::move(allocator), tf32_allowed = std::move(tf32); },
        py::arg("allocate"), py::arg("allows_tf32"),
        "allocate(bytes, device index) -> a CUDA tensor for partial sums; allows_tf32() -> whether f32 products may be "
        "rounded to tf32. None for either: k is not split, products are exact.");
}

}  // namespace nk
