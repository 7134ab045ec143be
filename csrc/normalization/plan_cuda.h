// The CUDA plan of a normalization over rows. Pure functions.
#pragma once

#include <vector>

#include "kernels/cuda/normalization/params.h"
#include "plan/rows_cuda.h"

namespace nk::normalization {

// The rows that tensors share: data tensors first, the statistics last in `outer`; data tensors, then weight and bias
// in `inner`. Absent ones have address 0.
struct Space {
    IndexSpace outer, inner;
    uintptr_t address[kMaxTensors] = {};  // as in `inner`
    int data = 0;                         // tensors that are in both

    // Whether 16-byte units of all tensors lie along the row.
    bool in_units(DType type) const {
        const int unit = plan::unit_of(type);
        bool ok = inner.ndim == 1 && inner.size[0] % unit == 0;
        for (int t = 0; t < inner.tensors && ok; ++t) {
            if (address[t] == 0) continue;
            ok = inner.stride[t][0] == 1 && plan::aligned(address[t]);
            for (int d = 0; t < data && d < outer.ndim && ok; ++d)
                ok = outer.stride[t][d] % unit == 0 || outer.size[d] == 1;
        }
        return ok;
    }
};

struct Plan : plan::RowKernel {
    std::vector<plan::Chunk> chunks;  // of the rows
};

inline Plan plan_rows(const Space& s, DType type) {
    Plan p;
    p.vector = s.in_units(type);
    if (s.inner.ndim == 1)
        choose_row_kernel(p, s.inner.numel(), type, true);  // a row and its weights, or two rows
    else
        choose_long_row(p);  // the one kernel that walks more dims
    p.chunks = plan::split(s.outer);
    return p;
}

}  // namespace nk::normalization
