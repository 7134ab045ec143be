#include "lanes.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace emu {

namespace {

// The usual case: every lane is active and stores behind the one before.
bool ascending(uint32_t mask, const uint64_t* address, uint32_t bytes) {
    if (mask != ~0u) {
        uint64_t end = 0;
        for (; mask != 0; mask &= mask - 1) {
            const int l = std::countr_zero(mask);
            if (address[l] < end) return false;
            end = address[l] + bytes;
        }
        return true;
    }
    int64_t apart = INT64_MAX;
    for (int l = 1; l < 32; ++l) apart = std::min(apart, static_cast<int64_t>(address[l] - address[l - 1]));
    return apart >= static_cast<int64_t>(bytes);
}

}  // namespace

// Accesses are aligned to their size, so two that overlap have one address.
std::pair<int, int> contradiction(uint32_t mask, const uint64_t* address, uint32_t bytes, Values values) {
    if (ascending(mask, address, bytes)) return {-1, -1};
    int lanes[32], count = 0;
    for (; mask != 0; mask &= mask - 1) lanes[count++] = std::countr_zero(mask);
    std::sort(lanes, lanes + count,
              [&](int a, int b) { return address[a] != address[b] ? address[a] < address[b] : a < b; });
    for (int k = 1; k < count; ++k) {
        const int a = lanes[k - 1], b = lanes[k];
        if (address[a] == address[b] && std::memcmp(values[a], values[b], bytes) != 0) return {a, b};
    }
    return {-1, -1};
}

}  // namespace emu
