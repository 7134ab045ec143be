// How far apart the rows of a packed operand lie: known to those who make room for them, and to the kernels.
#pragma once

#include <cstdint>

namespace nk::cpu {

// Units from one packed row of a to the next: whole cache lines, and an odd number of them, so that the rows of a
// tile fall into different sets of the first cache.
constexpr int64_t packed_row(int64_t units, int64_t unit_bytes) {
    return ((units * unit_bytes + 63) / 64 | 1) * 64 / unit_bytes;
}

}  // namespace nk::cpu
