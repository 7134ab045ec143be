// Memory for the time of one call, from torch's own allocator.
#pragma once

#include <memory>

#include "tensor/host_memory.h"

namespace nk {

struct Scratch {
    void* data = nullptr;
    int64_t bytes = 0;
    std::shared_ptr<HostMemory> memory;
    std::shared_ptr<void> owner;  // giving it back right after a launch is safe: memory is reused in stream order
};

// At least `bytes` bytes on the device of `like`. Needs the GIL, also when the last owner goes.
Scratch allocate_scratch(const TensorView& like, int64_t bytes);

}  // namespace nk
