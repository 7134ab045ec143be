// Walking a contiguous row of T in whole steps of several vectors, then in single ones.
#pragma once

#include "walk.h"

namespace nk::NK_ISA {

// The lines that V::lanes elements at p lie in, on their way to L1.
template <class V, class T>
NK_HD void prefetch(const T* p) {
    constexpr int bytes = V::lanes * static_cast<int>(sizeof(T));
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch(reinterpret_cast<const char*>(p) + i);
}

// The same on their way to L2, one line in two, of rows that follow one another: the machine's own prefetching brings
// the others, and stops where a page ends.
template <class V, class T>
NK_HD void prefetch_row(const T* p) {
    constexpr int bytes = V::lanes * static_cast<int>(sizeof(T));
    for (int i = 0; i < bytes; i += 128) __builtin_prefetch(reinterpret_cast<const char*>(p) + i, 0, 2);
}

template <class S>
NK_HD vec<S> fold_add(vec<S> v) {
    return v;
}
template <class V>
NK_HD auto fold_add(two<V> v) {
    return fold_add(v.lo + v.hi);
}

inline constexpr int kSumTerms = 128;  // terms that a lane adds up before they join the total

template <class T>
struct Row {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    using W = wide<V, (width<T> < 4 && V::lanes == 1) ? 4 : width<T>>;  // four sums at least, for accuracy
    static constexpr int L = V::lanes;
    static constexpr int64_t sum_block = kSumTerms * W::lanes;

    // body(i) in whole steps, then body(i, count) in vectors, with count < L only in the last.
    template <class Whole, class Part>
    static NK_HD void walk(int64_t begin, int64_t end, Whole whole, Part part) {
        int64_t i = begin;
        for (; i + W::lanes <= end; i += W::lanes) whole(i);
        for (; i < end; i += L) part(i, static_cast<int>(min64(L, end - i)));
    }
    // The same over the elements of an output, where the whole steps begin on a line so that they can be streamed.
    template <class Whole, class Part>
    static NK_HD void walk_out(const T* out, bool streaming, int64_t begin, int64_t end, Whole whole, Part part) {
        int64_t i = begin;
        if (can_stream && streaming) {
            const auto misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(out + begin) % 64 / sizeof(T));
            const int64_t first = min64(end, begin + (64 / static_cast<int64_t>(sizeof(T)) - misaligned) %
                                                         (64 / static_cast<int64_t>(sizeof(T))));
            for (; i < first; i += L) part(i, static_cast<int>(min64(L, first - i)));
            i = first;
        }
        walk(i, end, whole, part);
    }
    // 16-bit types wait for the arithmetic rather than for memory.
    static constexpr bool can_stream = sizeof(T) != 2;
    static NK_HD void write(T* p, W v, bool streaming) { put_wide(p, v, can_stream && streaming); }

    template <class P>
    static NK_HD auto read_some(const P* p, int n) {
        return n == L ? load(p) : load(p, n);
    }
    template <class P>
    static NK_HD void write_some(P* p, V v, int n) {
        if (n == L)
            store(p, v);
        else
            store(p, v, n);
    }
    template <class P>
    static NK_HD W read(const P* p) {
        W v;
        load_wide(p, v);
        return v;
    }
};

}  // namespace nk::NK_ISA
