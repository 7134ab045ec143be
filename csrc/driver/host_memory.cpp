#include "host_memory.h"

namespace nk::driver {

void HostMemory::add(const TensorView& view, Contents contents) {
    const DriverTable* t = table();
    const auto [begin, end] = extent(view);
    if (view.numel() == 0 || t == nullptr || t->cuMemHostRegister_v2 == nullptr) return;
    void* memory = const_cast<char*>(begin);
    auto bytes = static_cast<size_t>(end - begin);
    if (t->cuMemHostRegister_v2(memory, bytes, 0) != 0) return;
    data_ = memory;
    auto address = reinterpret_cast<uint64_t>(memory);
    if (contents == Contents::unset && t->cuMemDiscardBatchAsync != nullptr)
        t->cuMemDiscardBatchAsync(&address, &bytes, 1, 0, nullptr);
}

void HostMemory::remove() {
    if (const DriverTable* t = table(); t != nullptr && t->cuMemHostUnregister != nullptr)
        t->cuMemHostUnregister(data_);
}

}  // namespace nk::driver
