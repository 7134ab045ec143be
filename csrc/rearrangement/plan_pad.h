// How kernels walk through a padding: dims in the order of the output's memory, neighbours joined, and for each the
// places that its elements come from. Pure functions.
#pragma once

#include <algorithm>
#include <vector>

#include "rearrangement/problem.h"

namespace nk::rearrangement {

// A dim of the output `to` (elements that are written) and of `from`; the input has n elements, the result `size`.
struct PadDim {
    int64_t n = 1, size = 1, lo = 0;
    int64_t to = 0, from = 0;  // strides, in elements

    bool padded() const { return lo != 0 || n != size; }
};

// The innermost first: those of `to`, which lies densely. `backward`: the input's gradient is what is written.
inline std::vector<PadDim> pad_dims(const TensorView& to, const TensorView& from, const int64_t* lo, bool backward) {
    std::vector<PadDim> dims;
    int order[kMaxDims], count = 0;
    for (int d = to.ndim - 1; d >= 0; --d)
        if (to.shape[d] != 1 || from.shape[d] != 1 || lo[d] != 0) order[count++] = d;
    std::stable_sort(order, order + count, [&](int a, int b) {
        const bool one_a = to.shape[a] == 1, one_b = to.shape[b] == 1;  // of one element: the stride says nothing
        return one_a || one_b ? one_b < one_a : to.stride[a] < to.stride[b];
    });
    for (int i = 0; i < count; ++i) {
        const int d = order[i];
        const TensorView &input = backward ? to : from, &result = backward ? from : to;
        const PadDim next{input.shape[d], result.shape[d], lo[d], to.stride[d], from.stride[d]};
        PadDim* const last = dims.empty() ? nullptr : &dims.back();
        if (last != nullptr && !last->padded() && !next.padded() && next.to == last->to * last->n &&
            next.from == last->from * last->n) {
            last->n = last->size = last->n * next.n;
        } else {
            dims.push_back(next);
        }
    }
    return dims;
}

// Dims as what the CPU's kernels are told: units that stay together, rows of units, planes of rows.
struct PadLoops {
    int64_t unit = 1, inner = 1;  // elements of a unit, and from one to the next in `from`
    PadDim row, rows;
    std::vector<PadDim> planes;
};

// `any`: a unit's elements may lie anywhere in `from`.
inline PadLoops pad_loops(std::vector<PadDim> dims, bool any) {
    PadLoops l;
    size_t next = 0;
    if (dims.size() > 1 && !dims[0].padded() && dims[1].padded() && (any || dims[0].from == 1)) {
        l.unit = dims[0].n, l.inner = dims[0].from;
        next = 1;
    }
    if (next < dims.size()) l.row = dims[next++];
    if (next < dims.size()) l.rows = dims[next++];
    l.planes.assign(dims.begin() + static_cast<std::ptrdiff_t>(std::min(next, dims.size())), dims.end());
    return l;
}

// The units of a row of the result that lie side by side as the input's do.
struct Middle {
    int64_t front, count, first;  // units before them, how many, the first one's number on the other side
};

inline Middle middle_of_result(const PadDim& d) {
    const int64_t front = std::clamp<int64_t>(d.lo, 0, d.size), end = std::clamp<int64_t>(d.lo + d.n, front, d.size);
    return {front, end - front, front - d.lo};
}
inline Middle middle_of_gradient(const PadDim& d) {
    const int64_t front = std::clamp<int64_t>(-d.lo, 0, d.n), end = std::clamp<int64_t>(d.size - d.lo, front, d.n);
    return {front, end - front, front + d.lo};
}

// For each element of a padded dim, from where it comes, in elements of `from`; -1: the filler.
inline std::vector<int64_t> offsets_of(const PadDim& d, PadMode mode) {
    std::vector<int64_t> made(static_cast<size_t>(d.size));
    for (int64_t o = 0; o < d.size; ++o) {
        const int64_t source = pad_source(mode, o, d.n, d.lo, d.size);
        made[static_cast<size_t>(o)] = source < 0 ? -1 : source * d.from;
    }
    return made;
}

// The places that come together in units of a dim's gradient: in unit i those of[i] .. of[i + 1] of `among`.
struct Together {
    std::vector<int64_t> at, of{0}, among;
};

inline void add_places(Together& t, const PadPlaces& p, int64_t step) {
    for (int64_t k = 0; k < p.total(); ++k) t.among.push_back(p[k] * step);
    t.of.push_back(static_cast<int64_t>(t.among.size()));
}

// Of every element, as offsets in `from`.
inline Together places_of(const PadDim& d, PadMode mode) {
    Together t;
    for (int64_t i = 0; i < d.n; ++i) add_places(t, pad_places(mode, i, d.n, d.lo, d.size), d.from);
    return t;
}

// Of the elements that padding has come from, as numbers: they lie near the ends.
inline Together edges_of(const PadDim& d, PadMode mode) {
    Together t;
    const int64_t hi = d.size - d.n - d.lo;
    const int64_t reach = std::max<int64_t>({d.lo, hi, 0}) + std::max<int64_t>({-d.lo, -hi, 0}) + 1;
    for (int64_t i = 0; i < d.n; ++i) {
        if (i == reach) i = std::max(i, d.n - reach);
        const PadPlaces p = pad_places(mode, i, d.n, d.lo, d.size);
        if (p.total() == p.count[0]) continue;
        t.at.push_back(i);
        add_places(t, p, 1);
    }
    return t;
}

}  // namespace nk::rearrangement
