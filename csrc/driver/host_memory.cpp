#include "driver/host_memory.h"

#include "driver/table.h"
#include "tensor/geometry.h"
#include "tensor/host_memory.h"

namespace nk::driver {

namespace {

void* add(const TensorView& view, Contents contents) {
    if (!is_emulated()) return nullptr;
    const DriverTable* t = table();
    const auto [begin, end] = extent(view);
    if (view.numel() == 0 || t == nullptr || t->cuMemHostRegister_v2 == nullptr) return nullptr;
    void* memory = const_cast<char*>(begin);
    auto bytes = static_cast<size_t>(end - begin);
    if (t->cuMemHostRegister_v2(memory, bytes, 0) != 0) return nullptr;
    auto address = reinterpret_cast<uint64_t>(memory);
    if (contents == Contents::unset && t->cuMemDiscardBatchAsync != nullptr)
        t->cuMemDiscardBatchAsync(&address, &bytes, 1, 0, nullptr);
    return memory;
}

void remove(void* memory) {
    if (const DriverTable* t = table(); t != nullptr && t->cuMemHostUnregister != nullptr)
        t->cuMemHostUnregister(memory);
}

}  // namespace

void listen_to_host_memory() { host_memory_listener = {add, remove}; }

}  // namespace nk::driver
