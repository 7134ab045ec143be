// Which CUDA kernel serves a row that threads share, and with how many of them. Pure functions.
#pragma once

#include <string>

#include "kernels/cuda/tile/row_threads.h"
#include "plan/elementwise_cuda.h"

namespace nk::plan {

struct RowKernel {
    enum Variant { warp, block, long_row } variant = warp;
    std::string kernel;  // without prefix and element type: "warp8", "block16", "long"
    bool vector = false;
    int lanes_log2 = 0;  // threads per row (warp)
    unsigned threads = 0;

    int lanes() const { return variant == warp ? 1 << lanes_log2 : static_cast<int>(threads); }
    int64_t grid(int64_t rows) const { return variant == warp ? ceil_div(rows << lanes_log2, threads) : rows; }
};

// Values that each thread keeps in registers; f64 keeps half as many.
inline int kept(int n, DType t) { return t == DType::f64 ? n / 2 : n; }

// The longest row that stays in registers: 32 (with two inputs: 16) values in each of 1024 threads.
inline int64_t longest_in_registers(DType t, bool two) { return int64_t{1024} * kept(two ? 16 : 32, t); }

inline void choose_long_row(RowKernel& p) {
    p.variant = RowKernel::long_row;
    p.kernel = "long";
    p.threads = cuda::kRowLongThreads;
}

// `two`: the kernel keeps two rows in registers, as gradients do. p.vector has been decided.
inline void choose_row_kernel(RowKernel& p, int64_t length, DType type, bool two) {
    const auto in_warp = [&](int values) {  // the fewest lanes that hold the row in `values` each
        p.variant = RowKernel::warp;
        p.kernel = "warp" + std::to_string(values);
        p.lanes_log2 = ceil_log2(ceil_div(length, kept(values, type)));
        p.threads = cuda::kRowWarpThreads;
    };
    const auto in_block = [&](int values) {
        p.variant = RowKernel::block;
        p.kernel = "block" + std::to_string(values);
        p.threads = static_cast<unsigned>(32 * ceil_div(length, 32 * kept(values, type)));
    };
    // 2 values waste the fewest places on short rows, but hold no unit; 8 hold one of every type.
    if (!p.vector && length <= 32 * kept(2, type)) return in_warp(2);
    if (length <= 32 * kept(8, type)) return in_warp(8);
    if (length <= 32 * kept(32, type)) return in_warp(32);
    // 32 values from half the threads on: then two blocks share an SM, and one loads while the other stores.
    if (length <= 512 * kept(16, type) || (two && length <= longest_in_registers(type, true))) return in_block(16);
    if (!two && length <= longest_in_registers(type, false)) return in_block(32);
    choose_long_row(p);
}

inline std::string describe(const RowKernel& p, int lanes, int64_t grid, size_t launches) {
    return (p.vector ? "units of 16 bytes" : "single elements") + std::string(", lanes ") + std::to_string(lanes) +
           ", grid " + std::to_string(grid) + " x " + std::to_string(p.threads) +
           (launches > 1 ? ", launches " + std::to_string(launches) : "");
}

}  // namespace nk::plan
