// The CUDA plan of the softmax family: which kernel serves which row, and with how many threads. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/softmax/params.h"
#include "plan/elementwise_cuda.h"

namespace nk::plan {

enum class SoftmaxVariant { warp, block, long_row, inner };

struct SoftmaxPlan {
    SoftmaxVariant variant = SoftmaxVariant::warp;
    std::string kernel;  // without prefix and element type: "warp8", "block16", "long", "inner_unit"
    bool vector = false;
    int lanes_log2 = 0;  // threads per row (warp) or along the rows (inner)
    unsigned threads = 0;

    struct Launch {
        cuda::Layout<3> layout;
        int64_t rows = 0;  // points of the layout
        int64_t grid = 0;
        int64_t offset[kMaxTensors] = {};
    };
    std::vector<Launch> launches;
};

// Values that each thread keeps in registers; f64 keeps half as many.
inline int kept(int n, DType t) { return t == DType::f64 ? n / 2 : n; }

// The longest row that stays in registers: 32 (backward, with two inputs: 16) values in each of 1024 threads.
inline int64_t longest_in_registers(DType t, bool backward) { return int64_t{1024} * kept(backward ? 16 : 32, t); }

inline void choose_row_kernel(SoftmaxPlan& p, int64_t length, DType type, bool backward) {
    const auto in_warp = [&](int values) {  // the fewest lanes that hold the row in `values` each
        p.variant = SoftmaxVariant::warp;
        p.kernel = "warp" + std::to_string(values);
        p.lanes_log2 = ceil_log2(ceil_div(length, kept(values, type)));
        p.threads = cuda::kSoftmaxWarpThreads;
    };
    const auto in_block = [&](int values) {
        p.variant = SoftmaxVariant::block;
        p.kernel = "block" + std::to_string(values);
        p.threads = static_cast<unsigned>(32 * ceil_div(length, 32 * kept(values, type)));
    };
    // 2 values waste the fewest places on short rows, but hold no unit; 8 hold one of every type.
    if (!p.vector && length <= 32 * kept(2, type)) return in_warp(2);
    if (length <= 32 * kept(8, type)) return in_warp(8);
    if (length <= 32 * kept(32, type)) return in_warp(32);
    // 32 values from half the threads on: then two blocks share an SM, and one loads while the other stores.
    if (length <= 512 * kept(16, type) || (backward && length <= longest_in_registers(type, true))) return in_block(16);
    if (!backward && length <= longest_in_registers(type, false)) return in_block(32);
    p.variant = SoftmaxVariant::long_row;
    p.kernel = "long";
    p.threads = cuda::kSoftmaxLongThreads;
}

// Lanes along the rows, parts along the length. Parts beyond what the length can feed would idle, so short rows take
// more lanes; few rows take fewer, down to 8 (128 bytes in units), until there are two blocks per SM.
inline int inner_lanes_log2(int64_t rows, int64_t length, int in_flight, int multiprocessors) {
    const int all = ceil_log2(cuda::kSoftmaxInnerThreads);
    const int fewest = std::max(0, all - ceil_log2(ceil_div(length, in_flight)));
    int lanes = std::max(5, fewest);
    while (lanes > std::max(3, fewest) && ceil_div(rows, int64_t{1} << lanes) < 2 * multiprocessors) --lanes;
    return std::min(lanes, all);
}

// `rows`: the index space of all tensors (out, then inputs) without the reduced dim; `along` its strides, `length` its
// size. Needs length > 0 and a row at least.
inline SoftmaxPlan plan_softmax(const IndexSpace& rows, const int64_t* along, int64_t length, const Operand* operands,
                                DType type, int multiprocessors) {
    SoftmaxPlan p;
    const int unit = unit_of(type);
    const bool backward = rows.tensors == 3;
    const bool inner = length > 1 && rows.numel() > 1 && rows.stride[0][0] < along[0];

    IndexSpace space = rows;
    if (inner) {
        p.variant = SoftmaxVariant::inner;
        p.vector = fits_units(rows, operands, type, true, along);
        if (p.vector) space = in_units(rows, type);
        p.kernel = p.vector ? "inner_unit" : "inner_element";
        p.threads = cuda::kSoftmaxInnerThreads;
        const int in_flight = p.vector ? (backward ? 2 : 4) : 8;  // R of the kernels
        p.lanes_log2 = inner_lanes_log2(space.numel(), length, in_flight, multiprocessors);
    } else {
        p.vector = length % unit == 0;
        for (int t = 0; t < rows.tensors && p.vector; ++t) {
            p.vector = along[t] == 1 && aligned(operands[t].address);
            for (int d = 0; d < rows.ndim && p.vector; ++d)
                p.vector = rows.stride[t][d] % unit == 0 || rows.numel() == 1;
        }
        choose_row_kernel(p, length, type, backward);
    }

    for (const Chunk& chunk : split(space)) {
        SoftmaxPlan::Launch l;
        fill_layout(chunk.space, l.layout);
        l.rows = chunk.space.numel();
        std::copy(chunk.offset, chunk.offset + kMaxTensors, l.offset);
        switch (p.variant) {
            case SoftmaxVariant::warp:
                l.grid = ceil_div(l.rows << p.lanes_log2, p.threads);
                break;
            case SoftmaxVariant::inner:
                l.grid = ceil_div(l.rows, int64_t{1} << p.lanes_log2);
                break;
            default:
                l.grid = l.rows;
        }
        p.launches.push_back(l);
    }
    return p;
}

inline std::string describe(const SoftmaxPlan& p) {
    return (p.vector ? "units of 16 bytes" : "single elements") + std::string(", lanes ") +
           std::to_string(p.variant == SoftmaxVariant::warp || p.variant == SoftmaxVariant::inner
                              ? 1 << p.lanes_log2
                              : static_cast<int>(p.threads)) +
           ", grid " + std::to_string(p.launches.front().grid) + " x " + std::to_string(p.threads) +
           (p.launches.size() > 1 ? ", launches " + std::to_string(p.launches.size()) : "");
}

}  // namespace nk::plan
