// CUDA plans of sums over rows, per column or per channel: parts that are summed side by side, and their memory. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/cuda/elementwise/params.h"
#include "plan/elementwise_cuda.h"

namespace nk::plan {

inline constexpr int64_t kMaxParts = 65535;  // gridDim.y

struct ColumnPlan {
    bool vector = false;
    int lanes_log2 = 0;
    int64_t tiles = 1, parts = 1, rows_per_part = 0;

    int64_t workspace(int64_t columns, DType type) const {
        return parts > 1 ? parts * columns * compute_size(type) : 0;
    }
};

inline ColumnPlan plan_columns(int64_t rows, int64_t columns, bool vector, DType type, int multiprocessors) {
    ColumnPlan p;
    p.vector = vector;
    const int64_t units = vector ? columns / unit_of(type) : columns;
    p.lanes_log2 = std::min(ceil_log2(units), cuda::kColumnLanesLog2);
    p.tiles = ceil_div(units, int64_t{1} << p.lanes_log2);
    // About four blocks per SM, of at least 8 rows per thread; the second stage then has few parts to add.
    const int64_t groups = cuda::kColumnThreads >> p.lanes_log2;
    const int64_t wanted = std::min(ceil_div(4 * multiprocessors, p.tiles), ceil_div(rows, groups * 8));
    p.parts = std::clamp<int64_t>(wanted, 1, kMaxParts);
    p.rows_per_part = ceil_div(rows, p.parts);
    p.parts = rows > 0 ? ceil_div(rows, p.rows_per_part) : 1;  // none without rows
    return p;
}

inline std::string describe(const ColumnPlan& p) {
    return (p.vector ? "units of 16 bytes" : "single elements") + std::string(", lanes ") +
           std::to_string(1 << p.lanes_log2) + ", rows per part " + std::to_string(p.rows_per_part) + ", grid " +
           std::to_string(p.tiles) + " x " + std::to_string(p.parts);
}

// ---- sums per channel, channel not innermost ----

struct RowsPlan {
    bool vector = false;
    int64_t parts = 1, per_part = 0;
};

inline RowsPlan plan_rows(int64_t count, int64_t channels, bool vector, int multiprocessors) {
    RowsPlan p;
    p.vector = vector;
    const int64_t wanted = std::min(ceil_div(8 * multiprocessors, channels), ceil_div(count, 8 * cuda::kColumnThreads));
    p.parts = std::clamp<int64_t>(wanted, 1, kMaxParts);
    p.per_part = ceil_div(count, p.parts);
    p.parts = count > 0 ? ceil_div(count, p.per_part) : 1;
    return p;
}

}  // namespace nk::plan
