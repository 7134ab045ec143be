#include "heap.h"

#include <cstring>
#include <mutex>

#include "../error.h"

namespace emu {

namespace {
constexpr uint64_t kMost = uint64_t{8} << 20;  // as much as CUDA sets aside unless it is told otherwise
constexpr uint64_t kNear = 256;                // bytes from a block, for messages
}  // namespace

uint64_t Heap::allocate(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes == 0 || bytes > kMost - used_) return 0;
    Block b{std::unique_ptr<char[]>(new char[bytes]), bytes};
    std::memset(b.data.get(), 0xff, bytes);  // NaN in every format
    const auto begin = reinterpret_cast<uint64_t>(b.data.get());
    for (auto behind = freed_.lower_bound(begin + bytes); behind != freed_.begin();) {
        const auto it = std::prev(behind);
        if (it->first + it->second <= begin) break;
        behind = freed_.erase(it);
    }
    blocks_[begin] = std::move(b);
    used_ += bytes;
    return begin;
}

bool Heap::release(uint64_t address) {
    const std::lock_guard lock(mutex_);
    const auto it = blocks_.find(address);
    if (it == blocks_.end()) return false;
    used_ -= it->second.bytes;
    freed_[address] = it->second.bytes;
    blocks_.erase(it);
    return true;
}

bool Heap::holds(uint64_t address, uint64_t bytes) const {
    const std::shared_lock lock(mutex_);
    const auto it = blocks_.upper_bound(address);
    if (it == blocks_.begin()) return false;
    const auto& [begin, b] = *std::prev(it);
    return bytes <= b.bytes && address - begin <= b.bytes - bytes;
}

std::string Heap::describe(uint64_t address) const {
    const std::shared_lock lock(mutex_);
    for (const auto& [begin, bytes] : freed_)
        if (address >= begin && address < begin + bytes) return concat("in ", bytes, " bytes that were freed");
    for (const auto& [begin, b] : blocks_) {
        if (address < begin && begin - address <= kNear)
            return concat(begin - address, " bytes before ", b.bytes, " bytes that malloc gave");
        if (address >= begin + b.bytes && address - begin - b.bytes <= kNear)
            return concat(address - begin - b.bytes, " bytes behind ", b.bytes, " bytes that malloc gave");
    }
    return {};
}

Heap& heap() {
    static auto* h = new Heap;  // threads may end after the statics
    return *h;
}

}  // namespace emu
