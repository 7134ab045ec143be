#include "unwritten.h"

#include <algorithm>

namespace emu {

namespace {

// f(page, first byte, bytes behind it) for each page of a range.
template <class F>
void each_page(uint64_t begin, uint64_t bytes, F f) {
    for (const uint64_t end = begin + bytes; begin < end;) {
        const uint64_t page = begin / kPageBytes, stop = std::min(end, (page + 1) * kPageBytes);
        f(page, begin % kPageBytes, stop - begin);
        begin = stop;
    }
}

void fill(PageBits& bits, uint64_t first, uint64_t count, bool value) {
    for (uint64_t k = first; k < first + count;) {
        const uint64_t n = std::min<uint64_t>(64 - k % 64, first + count - k);
        const uint64_t mask = (n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1) << k % 64;
        bits[k / 64] = value ? bits[k / 64] | mask : bits[k / 64] & ~mask;
        k += n;
    }
}

bool empty(const PageBits& bits) {
    return std::all_of(bits.begin(), bits.end(), [](uint64_t x) { return x == 0; });
}

}  // namespace

void Unwritten::set(uint64_t begin, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    each_page(begin, bytes, [&](uint64_t page, uint64_t first, uint64_t n) { fill(pages_[page], first, n, true); });
}

void Unwritten::clear(uint64_t begin, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (pages_.empty()) return;
    each_page(begin, bytes, [&](uint64_t page, uint64_t first, uint64_t n) {
        const auto it = pages_.find(page);
        if (it == pages_.end()) return;
        fill(it->second, first, n, false);
        if (empty(it->second)) pages_.erase(it);
    });
}

bool Unwritten::of_page(uint64_t page, PageBits& to) const {
    const std::lock_guard lock(mutex_);
    const auto it = pages_.find(page);
    if (it == pages_.end()) return false;
    to = it->second;
    return true;
}

void Unwritten::keep(uint64_t page, const PageBits& left) {
    const std::lock_guard lock(mutex_);
    const auto it = pages_.find(page);
    if (it == pages_.end()) return;
    for (size_t k = 0; k < left.size(); ++k) it->second[k] &= left[k];
    if (empty(it->second)) pages_.erase(it);
}

Unwritten& unwritten() {
    static auto* all = new Unwritten();  // threads may end after the statics
    return *all;
}

}  // namespace emu
