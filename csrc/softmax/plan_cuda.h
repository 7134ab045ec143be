// The CUDA plan of the softmax family: which kernel serves which row, and with how many threads. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/softmax/params.h"
#include "plan/rows_cuda.h"

namespace nk::plan {

struct SoftmaxPlan : RowKernel {  // or, where neighbours in memory are of different rows, "inner_unit", "inner_element"
    bool inner = false;           // lanes_log2 is along the rows then

    struct Launch {
        cuda::Layout<3> layout;
        int64_t rows = 0;  // points of the layout
        int64_t grid = 0;
        int64_t offset[kMaxTensors] = {};
    };
    std::vector<Launch> launches;
};

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
    p.inner = length > 1 && rows.numel() > 1 && rows.stride[0][0] < along[0];

    IndexSpace space = rows;
    if (p.inner) {
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
        l.grid = p.inner ? ceil_div(l.rows, int64_t{1} << p.lanes_log2) : p.grid(l.rows);
        p.launches.push_back(l);
    }
    return p;
}

inline std::string describe(const SoftmaxPlan& p) {
    return describe(p, p.inner ? 1 << p.lanes_log2 : p.lanes(), p.launches.front().grid, p.launches.size());
}

}  // namespace nk::plan
