// What the CUDA side asks of Python while it runs: how exact f32 products must be. neurokern.ops registers it; the
// extension itself knows nothing of torch.
#pragma once

#include <pybind11/pytypes.h>

namespace nk {

// Whether f32 operands of a product may be rounded to tf32: torch's matmul precision is not "highest". Needs the GIL.
bool allows_tf32();

void register_cuda_hooks(pybind11::handle m);

}  // namespace nk
