// How the rows of a normalization are shared out on the CPU. Pure functions.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plan/arithmetic.h"

namespace nk::normalization {

// Rows whose terms of gw and gb are added up before the sums of all such parts are. The parts follow from the shape
// alone, unless there are fewer than threads, so the same threads give the same bits.
inline int64_t rows_per_part(int64_t rows, int threads) {
    constexpr int64_t kTogether = 4;  // the kernel's
    constexpr int64_t kParts = 128;   // at most: their sums take memory
    constexpr int64_t kRows = 32;     // fewer add more to the traffic than to the accuracy
    const int64_t each = std::max(plan::ceil_div(rows, kParts), std::min(kRows, plan::ceil_div(rows, 4)));
    return std::max<int64_t>(1, std::min(plan::ceil_div(each, kTogether) * kTogether, plan::ceil_div(rows, threads)));
}

}  // namespace nk::normalization
