// Which stores of the CPU go past its caches. Pure functions.
//
// A store past the caches spares reading the line that it overwrites, and whoever reads the result next finds it in
// memory alone. That pays where the result would not have stayed: where what a call reads and writes is more than the
// last-level cache holds.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "tensor/view.h"

namespace nk::plan {

inline constexpr const char* kPastCaches = ", past the caches";  // in the trace

inline bool goes_past(int64_t written, int64_t read, int64_t last_level_cache) {  // bytes
    return written + read > last_level_cache;
}

// Bytes of the elements that lie in different places: an expanded operand counts once.
inline int64_t distinct_bytes(const TensorView& t) {
    int64_t n = size_of(t.dtype);
    for (int d = 0; d < t.ndim; ++d) n *= t.stride[d] == 0 && t.shape[d] > 1 ? 1 : t.shape[d];
    return n;
}

// Of tensors, the outputs first. An output that overwrites an input finds its lines in the caches anyway.
inline bool goes_past(const TensorView* const* tensors, int outputs, int inputs, int64_t last_level_cache) {
    int64_t bytes[2] = {};
    for (int t = 0; t < outputs + inputs; ++t) bytes[t >= outputs] += distinct_bytes(*tensors[t]);
    for (int t = 0; t < outputs; ++t)
        for (int j = 0; j < inputs; ++j)
            if (tensors[t]->data == tensors[outputs + j]->data) return false;
    return goes_past(bytes[0], bytes[1], last_level_cache);
}

// Rows worth storing past the caches: a line that is filled in two goes costs two trips to memory.
inline bool is_row_of_lines(int64_t bytes) {
    constexpr int64_t kLong = 4096;  // the two lines at a row's ends are few beside the others
    return bytes >= kLong || bytes % 64 == 0;
}

}  // namespace nk::plan
