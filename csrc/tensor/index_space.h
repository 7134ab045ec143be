// The index space that several tensors of one shape share, with as few dims as their strides allow.
#pragma once

#include <cstdint>

#include "tensor/view.h"

namespace nk {

inline constexpr int kMaxTensors = 7;  // elementwise kernels have three outputs and four inputs at most

// Dim 0 is the innermost: the one with the smallest stride in tensor 0. Dims of size 1 are gone and dims that lie
// densely one inside the other in every tensor are one, so equally permuted dense tensors have a single dim. There
// is always at least one dim.
struct IndexSpace {
    int ndim = 0;
    int tensors = 0;
    int64_t size[kMaxDims];
    int64_t stride[kMaxTensors][kMaxDims];  // elements

    int64_t numel() const {
        int64_t n = 1;
        for (int d = 0; d < ndim; ++d) n *= size[d];
        return n;
    }
};

// All views must have the shape of the first, which should be an output: its strides decide the order. The dim
// `skip`, if any, is left out (for ops that treat it by itself).
inline IndexSpace coalesce(const TensorView* const* views, int tensors, int skip = -1) {
    IndexSpace s;
    s.tensors = tensors;
    const TensorView& first = *views[0];

    // From the last dim to the first, which is the usual order already; insertion keeps equal strides in it.
    int order[kMaxDims], n = 0;
    for (int d = first.ndim - 1; d >= 0; --d) {
        if (d == skip || first.shape[d] == 1) continue;
        const auto before = [&](int a, int b) {  // whether dim a belongs inside dim b
            for (int t = 0; t < tensors; ++t)
                if (views[t]->stride[a] != views[t]->stride[b]) return views[t]->stride[a] < views[t]->stride[b];
            return false;
        };
        int at = n++;
        for (; at > 0 && before(d, order[at - 1]); --at) order[at] = order[at - 1];
        order[at] = d;
    }

    for (int i = 0; i < n; ++i) {
        const int d = order[i], last = s.ndim - 1;
        bool dense = last >= 0;
        for (int t = 0; t < tensors && dense; ++t) dense = views[t]->stride[d] == s.stride[t][last] * s.size[last];
        if (dense) {
            s.size[last] *= first.shape[d];
            continue;
        }
        s.size[s.ndim] = first.shape[d];
        for (int t = 0; t < tensors; ++t) s.stride[t][s.ndim] = views[t]->stride[d];
        ++s.ndim;
    }
    if (s.ndim == 0) {  // a single element
        s.ndim = 1;
        s.size[0] = 1;
        for (int t = 0; t < tensors; ++t) s.stride[t][0] = 1;
    }
    return s;
}

template <class... Views>
IndexSpace coalesce_all(const Views&... views) {
    static_assert(sizeof...(views) <= kMaxTensors, "more tensors than an index space holds");
    const TensorView* const list[] = {&views...};
    return coalesce(list, sizeof...(views));
}

}  // namespace nk
