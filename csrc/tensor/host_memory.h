// The host's memory as the device sees it: where kernels work on CPU tensors (the driver was replaced), the driver is
// told which memory is theirs, for as long as the object lives. On CUDA and on the CPU's own kernels it does nothing.
#pragma once

#include <utility>

#include "tensor/view.h"

namespace nk {

// Whether kernels may read what is there: memory that is only written to holds nothing that anyone wants.
enum class Contents { given, unset };

// Who hears of it: driver/host_memory.cpp, while kernels work on the host's memory. `add` returns what `remove` is
// called with, or null; it is null itself while nobody wants to know.
struct HostMemoryListener {
    void* (*add)(const TensorView& view, Contents contents) = nullptr;
    void (*remove)(void* memory) = nullptr;
};
inline HostMemoryListener host_memory_listener;

class HostMemory {
  public:
    HostMemory() = default;
    explicit HostMemory(const TensorView& view, Contents contents = Contents::given) {
        if (host_memory_listener.add != nullptr && view.device.kind == Device::cpu)
            data_ = host_memory_listener.add(view, contents);
    }
    HostMemory(HostMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
    HostMemory& operator=(HostMemory&& other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    ~HostMemory() {
        if (data_ != nullptr) host_memory_listener.remove(data_);
    }

  private:
    void* data_ = nullptr;
};

}  // namespace nk
