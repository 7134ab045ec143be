// What the CUDA side asks of Python while it runs: memory for a moment, and how exact f32 products must be.
// neurokern.ops registers both; the extension itself allocates nothing on a device and knows nothing of torch.
#pragma once

#include <pybind11/pybind11.h>

#include "tensor.h"

namespace nk {

// A tensor of at least `bytes` bytes on the device, freed in stream order when it goes out of scope; empty when
// nobody registered an allocator. Needs the GIL.
struct Workspace {
    pybind11::object tensor;
    void* data = nullptr;

    Workspace() = default;
    Workspace(int64_t bytes, Device device, const char* op);
};

// Whether Python can be asked for a workspace.
bool has_workspace();

// Whether f32 operands of a product may be rounded to tf32: torch's matmul precision is not "highest".
bool allows_tf32();

void register_cuda_hooks(pybind11::module_& m);

}  // namespace nk
