#include "host_memory.h"

namespace nk::driver {

void HostMemory::add(const TensorView& view) {
    const DriverTable* t = table();
    const auto [begin, end] = extent(view);
    if (view.numel() == 0 || t == nullptr || t->cuMemHostRegister_v2 == nullptr) return;
    void* memory = const_cast<char*>(begin);
    if (t->cuMemHostRegister_v2(memory, static_cast<size_t>(end - begin), 0) == 0) data_ = memory;
}

void HostMemory::remove() {
    if (const DriverTable* t = table(); t != nullptr && t->cuMemHostUnregister != nullptr)
        t->cuMemHostUnregister(data_);
}

}  // namespace nk::driver
