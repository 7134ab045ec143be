// How torch lays out what comes of a view.
#pragma once

#include <algorithm>

#include "tensor/memory_format.h"
#include "tensor/view.h"

namespace nk::rearrangement {

// Whether the elements fill their memory in some order of the dims.
inline bool is_dense(const TensorView& t) {
    if (t.is_contiguous()) return true;
    int order[kMaxDims];
    for (int d = 0; d < t.ndim; ++d) order[d] = d;
    // stable, and dims of one element last
    std::stable_sort(order, order + t.ndim, [&](int a, int b) {
        if (t.shape[a] < 2 || t.shape[b] < 2) return t.shape[a] >= 2 && t.shape[b] < 2;
        return t.stride[a] < t.stride[b];
    });
    int64_t step = 1;
    for (int i = 0; i < t.ndim; ++i) {
        const int d = order[i];
        if (t.shape[d] < 2) return true;
        if (t.stride[d] != step) return false;
        step *= t.shape[d];
    }
    return true;
}

// The strides of torch's empty_like(view): its own where it is dense, else dense ones in the order of its own.
inline void preserved_strides(const TensorView& t, int64_t* stride) {
    if (t.numel() == 0 || is_dense(t)) {
        std::copy(t.stride, t.stride + t.ndim, stride);
        return;
    }
    int order[kMaxDims];  // the innermost first
    for (int i = 0; i < t.ndim; ++i) order[i] = t.ndim - 1 - i;
    // 1 where a belongs outside of b, -1 inside; 0: a stride of 0 says nothing
    const auto outside = [&](int a, int b) {
        if (t.stride[a] == 0 || t.stride[b] == 0) return 0;
        if (t.stride[a] != t.stride[b]) return t.stride[a] < t.stride[b] ? -1 : 1;
        return t.shape[a] > t.shape[b] ? 1 : 0;
    };
    for (int i = 1; i < t.ndim; ++i)
        for (int at = i, j = i - 1; j >= 0; --j) {  // as torch's TensorIterator sorts them
            const int found = outside(order[j], order[at]);
            if (found < 0) break;
            if (found > 0) std::swap(order[j], order[at]), at = j;
        }
    int64_t step = 1;
    for (int i = 0; i < t.ndim; ++i) {
        stride[order[i]] = step;
        step *= std::max<int64_t>(t.shape[order[i]], 1);
    }
}

}  // namespace nk::rearrangement
