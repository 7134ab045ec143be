#include "tensor/geometry.h"

#include <algorithm>

namespace nk {

namespace {

// Dense: the elements fill their extent with neither gap nor repetition, in some order of dimensions.
bool is_dense(const TensorView& t) {
    int64_t span = 1;
    for (int i = 0; i < t.ndim; ++i) span += (t.shape[i] - 1) * t.stride[i];
    return span == t.numel() && !overlaps_itself(t);
}

}  // namespace

std::pair<const char*, const char*> extent(const TensorView& t) {
    int64_t low = 0, high = 0;
    for (int i = 0; i < t.ndim; ++i) (t.stride[i] < 0 ? low : high) += (t.shape[i] - 1) * t.stride[i];
    const char* base = static_cast<const char*>(t.data);
    const int64_t size = size_of(t.dtype);
    return {base + low * size, base + (high + 1) * size};
}

bool overlaps_itself(const TensorView& t) {
    if (t.is_contiguous()) return false;
    int order[kMaxDims];
    int n = 0;
    for (int i = 0; i < t.ndim; ++i) {
        if (t.shape[i] == 0) return false;
        if (t.shape[i] > 1) order[n++] = i;
    }
    std::sort(order, order + n, [&](int a, int b) { return t.stride[a] < t.stride[b]; });
    int64_t reach = 0;  // largest offset that the dimensions so far can address
    for (int k = 0; k < n; ++k) {
        if (t.stride[order[k]] <= reach) return true;
        reach += (t.shape[order[k]] - 1) * t.stride[order[k]];
    }
    return false;
}

Overlap overlap(const TensorView& a, const TensorView& b) {
    if (a.data == nullptr || b.data == nullptr || a.numel() == 0 || b.numel() == 0) return Overlap::none;
    const auto [a0, a1] = extent(a);
    const auto [b0, b1] = extent(b);
    if (a1 <= b0 || b1 <= a0) return Overlap::none;
    if (a.data == b.data && a.dtype == b.dtype && a.same_shape(b)) {
        bool same = true;
        for (int i = 0; i < a.ndim; ++i) same = same && (a.shape[i] == 1 || a.stride[i] == b.stride[i]);
        if (same) return Overlap::same;
    }
    if (is_dense(a) || is_dense(b)) return Overlap::partial;
    // Two interleaved views (halves of one tensor): disjoint when their rows, taken at a common pitch, do not meet.
    int64_t pitch = 0;
    for (const TensorView* t : {&a, &b})
        for (int i = 0; i < t->ndim; ++i)
            if (t->shape[i] > 1) pitch = std::max(pitch, t->stride[i]);
    if (pitch == 0 || a.dtype != b.dtype) return Overlap::partial;
    // Look for the smallest stride that both views' outer dimensions are multiples of.
    auto inner_reach = [](const TensorView& t, int64_t p) {
        int64_t reach = 0;
        for (int i = 0; i < t.ndim; ++i)
            if (t.shape[i] > 1 && t.stride[i] % p != 0) reach += (t.shape[i] - 1) * t.stride[i];
        return reach;
    };
    const int64_t size = size_of(a.dtype);
    const int64_t distance = (static_cast<const char*>(b.data) - static_cast<const char*>(a.data)) / size;
    for (const TensorView* t : {&a, &b})
        for (int i = 0; i < t->ndim; ++i) {
            const int64_t p = t->stride[i];
            if (t->shape[i] <= 1 || p <= 1) continue;
            const int64_t ra = inner_reach(a, p), rb = inner_reach(b, p);
            const int64_t d = ((distance % p) + p) % p;  // where b's rows start within a's pitch
            if (ra < d && d + rb < p) return Overlap::none;
        }
    return Overlap::partial;
}

bool expand(TensorView& t, const int64_t* shape, int ndim) {
    const int added = ndim - t.ndim;
    if (added < 0) return false;
    for (int i = ndim - 1; i >= 0; --i) {  // from the end: entry i may be written over once i - added has been read
        const bool own = i >= added && t.shape[i - added] == shape[i];
        if (!own && i >= added && t.shape[i - added] != 1) return false;
        t.stride[i] = own ? t.stride[i - added] : 0;
        t.shape[i] = shape[i];
    }
    t.ndim = ndim;
    return true;
}

}  // namespace nk
