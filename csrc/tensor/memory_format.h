// torch's memory formats, told by strides: what torch asks of a tensor before it lays out its results.
#pragma once

#include "tensor/view.h"

namespace nk {

// Whether [N, C, (D,) H, W] lies channels last, by torch's own rule: of one channel or one pixel it is ambiguous, and
// torch then asks the strides in the order W, H, (D,) N.
inline bool is_channels_last(const int64_t* shape, const int64_t* stride, int ndim) {
    if ((ndim != 4 && ndim != 5) || stride[1] == 0) return false;
    int64_t least = 0;
    const auto steps_over = [&](int d) {
        if (shape[d] == 0 || stride[d] < least) return false;
        if (d == 0 && least == stride[1]) return false;  // [N, 1, 1, 1] is called contiguous
        least = stride[d] * (shape[d] > 1 ? shape[d] : 1);
        return true;
    };
    if (!steps_over(1)) return false;
    for (int d = ndim - 1; d >= 2; --d)
        if (!steps_over(d)) return false;
    return steps_over(0);
}
inline bool is_channels_last(const TensorView& t) { return is_channels_last(t.shape, t.stride, t.ndim); }

// The strides of a dense tensor of that shape: contiguous, or channels last.
inline void dense_strides(const int64_t* shape, int ndim, bool channels_last, int64_t* stride) {
    int64_t step = 1;
    const auto next = [&](int d) { stride[d] = step, step *= shape[d] > 1 ? shape[d] : 1; };
    if (channels_last) next(1);
    for (int d = ndim - 1; d >= (channels_last ? 2 : 0); --d) next(d);
    if (channels_last) next(0);
}

}  // namespace nk
