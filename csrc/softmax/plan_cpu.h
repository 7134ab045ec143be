// The plan of softmax on the CPU. Pure functions.
#pragma once

#include <cstdint>

#include "tensor/index_space.h"

namespace nk::cpu {

// By the dim's strides: rows (contiguous along the dim in every tensor), columns (neighbouring columns are contiguous),
// or gathered rows (anything else: some rows at a time pass through buffers, no tensor is copied).
enum class SoftmaxWay { rows, columns, gathered };

inline constexpr int64_t kFewColumns = 8;  // fewer are gathered into rows instead

// `outer`: all other dims; `step`: strides along the dim, whose length is n.
inline SoftmaxWay softmax_way(const IndexSpace& outer, const int64_t* step, int64_t n) {
    bool along = true, across = outer.size[0] >= kFewColumns;
    for (int t = 0; t < outer.tensors; ++t) {
        along = along && (step[t] == 1 || n == 1);
        across = across && outer.stride[t][0] == 1;
    }
    return along ? SoftmaxWay::rows : across ? SoftmaxWay::columns : SoftmaxWay::gathered;
}

}  // namespace nk::cpu
