// Whole numbers, as plans use them.
#pragma once

#include <cstdint>

namespace nk::plan {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline int ceil_log2(int64_t n) {
    int k = 0;
    while ((int64_t{1} << k) < n) ++k;
    return k;
}

}  // namespace nk::plan
