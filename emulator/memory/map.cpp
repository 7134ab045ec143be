#include "map.h"

#include <algorithm>

#include "../checks/unwritten.h"
#include "../error.h"

namespace emu {

namespace {
constexpr uint64_t kGuard = 256;  // bytes on either side of what is allocated here
}

void Ranges::assign(std::vector<Range> any) {
    std::sort(any.begin(), any.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    list_.clear();
    for (const Range& r : any) {
        if (r.begin == r.end) continue;
        // views of one tensor overlap; neighbours that merely touch stay apart
        if (!list_.empty() && r.begin < list_.back().end)
            list_.back().end = std::max(list_.back().end, r.end);
        else
            list_.push_back(r);
    }
}

const Range* Ranges::find(uint64_t begin, uint64_t bytes) const {
    auto it =
        std::upper_bound(list_.begin(), list_.end(), begin, [](uint64_t x, const Range& r) { return x < r.begin; });
    if (it == list_.begin()) return nullptr;
    --it;
    return begin + bytes <= it->end ? &*it : nullptr;
}

std::string Ranges::describe(uint64_t address) const {
    if (list_.empty()) return "no memory is registered";
    const Range* nearest = nullptr;
    uint64_t distance = ~uint64_t{0};
    for (const Range& r : list_) {
        const uint64_t d = address < r.begin ? r.begin - address : address >= r.end ? address - r.end : 0;
        if (d < distance) distance = d, nearest = &r;
    }
    const uint64_t bytes = nearest->end - nearest->begin;
    if (address < nearest->begin) return concat(distance, " bytes before a tensor of ", bytes, " bytes");
    if (address >= nearest->end) return concat(distance, " bytes behind a tensor of ", bytes, " bytes");
    return concat("it begins ", nearest->end - address, " bytes before the end of a tensor of ", bytes, " bytes");
}

void MemoryMap::add(const void* data, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    ranges_.emplace(reinterpret_cast<uint64_t>(data), bytes);
    unwritten().clear(reinterpret_cast<uint64_t>(data), bytes);
}

void MemoryMap::discard(const void* data, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto begin = reinterpret_cast<uint64_t>(data), end = begin + bytes;
    unwritten().set(begin, bytes);
    bool own = true;  // the range itself is among them, once
    for (const auto& [b, n] : ranges_) {
        const bool same = b == begin && n == bytes;
        if (same && own) {
            own = false;
            continue;
        }
        const uint64_t from = std::max(b, begin), to = std::min(b + n, end);
        if (from < to) unwritten().clear(from, to - from);
    }
}

bool MemoryMap::remove(const void* data) {
    const std::lock_guard lock(mutex_);
    const auto key = reinterpret_cast<uint64_t>(data);
    auto it = ranges_.upper_bound(key);
    if (it == ranges_.begin() || (--it)->first != key) return false;
    unwritten().clear(it->first, it->second);
    ranges_.erase(it);
    return true;
}

void* MemoryMap::allocate(uint64_t bytes) {
    std::vector<char> block(bytes + 2 * kGuard + 256);
    const uint64_t begin = (reinterpret_cast<uint64_t>(block.data()) + kGuard + 255) / 256 * 256;
    const std::lock_guard lock(mutex_);
    owned_[begin] = std::move(block);
    ranges_.emplace(begin, bytes);
    unwritten().set(begin, bytes);
    return reinterpret_cast<void*>(begin);
}

bool MemoryMap::release(void* data) {
    {
        const std::lock_guard lock(mutex_);
        if (owned_.erase(reinterpret_cast<uint64_t>(data)) == 0) return false;
    }
    return remove(data);
}

Ranges MemoryMap::snapshot(std::vector<Range> all) const {
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [begin, bytes] : ranges_) all.push_back({begin, begin + bytes});
    }
    Ranges r;
    r.assign(std::move(all));
    return r;
}

MemoryMap& memory() {
    static MemoryMap map;
    return map;
}

}  // namespace emu
