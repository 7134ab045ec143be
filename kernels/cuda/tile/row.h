// One row of elements held by `lanes` threads: 2^k lanes of a warp, or all threads of a block.
//
// Where a thread's N values lie in the row, in chunks of 8 (or N, if smaller), W = elements of a 16-byte unit:
//
//   vector    value c + u + i, u = 0, W, ..   element (c + u) * lanes + lane * W + i      unit loads, warp-contiguous
//   otherwise value c + j                     element (c + j) * lanes + lane
#pragma once

#include "reduce.h"
#include "row_threads.h"
#include "unit.h"

namespace nk::cuda {

// Values of a row that a thread keeps in registers: of twice as wide numbers half as many.
template <DType T>
constexpr int values(int n) {
    return T == DType::f64 ? n / 2 : n;
}

template <int N>
inline constexpr int kChunk = N < 8 ? N : 8;

// f(place, element) for the places of this thread: whole units or single elements; only those inside the row.
template <DType T, int N, class OnUnit, class OnElement>
__device__ __forceinline__ void walk_row(bool vector, int length, int lane, int lanes, OnUnit&& on_unit,
                                         OnElement&& on_element) {
    constexpr int W = kUnit<T>, K = kChunk<N>;
#pragma unroll
    for (int c = 0; c < N; c += K) {
        if (c * lanes >= length) break;  // the same way for every lane of the row
        if (K % W == 0 && vector) {
#pragma unroll
            for (int u = 0; u < K; u += W) {
                const int e = (c + u) * lanes + lane * W;
                if (e < length) on_unit(c + u, e);
            }
        } else {
#pragma unroll
            for (int j = 0; j < K; ++j) {
                const int e = (c + j) * lanes + lane;
                if (e < length) on_element(c + j, e);
            }
        }
    }
}

template <DType T, int N>
__device__ __forceinline__ void load_row(const void* row, int64_t stride, bool vector, int length, int lane, int lanes,
                                         compute_t<T> fill, compute_t<T> (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = fill;
    walk_row<T, N>(
        vector, length, lane, lanes,
        [&](int place, int e) {
            compute_t<T> v[kUnit<T>];
            unpack<T>(load_unit(element<T>(row, e)), v);
#pragma unroll
            for (int i = 0; i < kUnit<T>; ++i)
                if (place + i < N) x[place + i] = v[i];
        },
        [&](int place, int e) { x[place] = load<T>(row, e * stride); });
}

template <DType T, int N>
__device__ __forceinline__ void store_row(void* row, int64_t stride, bool vector, int length, int lane, int lanes,
                                          const compute_t<T> (&x)[N]) {
    walk_row<T, N>(
        vector, length, lane, lanes,
        [&](int place, int e) {
            compute_t<T> v[kUnit<T>];
#pragma unroll
            for (int i = 0; i < kUnit<T>; ++i) v[i] = x[place + i < N ? place + i : 0];
            store_unit(element<T>(row, e), pack<T>(v));
        },
        [&](int place, int e) { store<T>(row, e * stride, x[place]); });
}

// Lanes of a warp or all threads of the block, with one face. `length` is 0 in lanes that have no row.
struct WarpRow {
    int lane, lanes;
    template <class C, class Op>
    __device__ __forceinline__ C reduce(C v, C, Op op) const {
        return reduce_lanes(v, lanes, op);
    }
};
template <class C>
struct BlockRow {
    C (&scratch)[kWarp];
    int lane, lanes;
    template <class Op>
    __device__ __forceinline__ C reduce(C v, C neutral, Op op) const {
        return reduce_block(v, scratch, neutral, op);
    }
};

// The row as a sequence of tiles of N values in each of Threads threads: f(first element, elements).
template <int N, int Threads, class F>
__device__ __forceinline__ void for_each_tile(int64_t length, F&& f) {
    constexpr int kTile = N * Threads;
#pragma unroll 1
    for (int64_t begin = 0; begin < length; begin += kTile)
        f(begin, static_cast<int>(length - begin < kTile ? length - begin : kTile));
}

}  // namespace nk::cuda
