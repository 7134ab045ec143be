// The plan of softmax on the CPU. Pure functions.
#pragma once

#include <cstdint>

#include "tensor/index_space.h"

namespace nk::cpu {

// By the dim's strides: rows (contiguous along the dim in every tensor), columns (neighbouring columns are contiguous),
// or gathered rows (anything else: some rows at a time pass through buffers, no tensor is copied).
enum class SoftmaxWay { rows, columns, gathered };

inline constexpr int64_t kFewColumns = 8;                  // fewer are gathered into rows instead
inline constexpr int64_t kStreamBytes = int64_t{8} << 20;  // of output, from which it passes by the caches
inline constexpr int64_t kLongRow = 4096;  // bytes; shorter rows are streamed only if they are whole lines

// `outer`: all other dims; `step`: strides along the dim, whose length is n.
inline SoftmaxWay softmax_way(const IndexSpace& outer, const int64_t* step, int64_t n) {
    bool along = true, across = outer.size[0] >= kFewColumns;
    for (int t = 0; t < outer.tensors; ++t) {
        along = along && (step[t] == 1 || n == 1);
        across = across && outer.stride[t][0] == 1;
    }
    return along ? SoftmaxWay::rows : across ? SoftmaxWay::columns : SoftmaxWay::gathered;
}

// Whether an output of so many elements, of `size` bytes each, is written past the caches; a gradient often reads it
// soon.
inline bool softmax_streams(int64_t elements, int64_t n, int size) {
    return elements * size >= kStreamBytes && (n * size >= kLongRow || n * size % 64 == 0);
}

}  // namespace nk::cpu
