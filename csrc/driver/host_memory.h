// The host's memory as the device sees it: where kernels work on CPU tensors (the table was replaced), the driver is
// told which memory is theirs, for as long as the object lives. On CUDA and on the CPU's own kernels it does nothing.
#pragma once

#include <utility>

#include "../tensor.h"
#include "table.h"

namespace nk::driver {

// Whether kernels may read what is there: memory that is only written to holds nothing that anyone wants.
enum class Contents { given, unset };

class HostMemory {
  public:
    HostMemory() = default;
    explicit HostMemory(const TensorView& view, Contents contents = Contents::given) {
        if (replaced() && view.device.kind == Device::cpu) add(view, contents);
    }
    HostMemory(HostMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
    HostMemory& operator=(HostMemory&& other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    ~HostMemory() {
        if (data_ != nullptr) remove();
    }

  private:
    void add(const TensorView& view, Contents contents);
    void remove();

    void* data_ = nullptr;
};

}  // namespace nk::driver
