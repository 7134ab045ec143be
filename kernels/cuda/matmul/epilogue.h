// What happens to a sum before it is written: v = alpha * sum + bias, kept as the preactivation if wanted, then
// activation(v) + beta * residual, rounded once. With k split over blocks the sums go to the workspace instead, and
// reduce.cu does the rest.
#pragma once

#include "../tile/element.h"
#include "../tile/scheduler.h"
#include "../tile/staging.h"
#include "activate.h"
#include "params.h"

namespace nk::cuda {

// Where the matrices of one batch entry begin.
template <DType T>
struct BatchEntry {
    using Stored = typename tile::Element<T>::Stored;
    const Stored *a, *b, *residual;
    Stored *out, *preact;

    __device__ __forceinline__ BatchEntry(const MatmulParams& p, int64_t index) {
        int64_t at[kBatchDims];
        tile::batch_coordinates(index, p.batch_size, at);
        auto begin = [&](const MatrixRef& x) {
            return static_cast<Stored*>(x.data) + (x.data != nullptr ? tile::batch_offset(at, x.batch) : 0);
        };
        a = begin(p.a), b = begin(p.b), out = begin(p.out);
        residual = begin(p.residual), preact = begin(p.preact);
    }
};

// Loads or stores kLanes columns of one row, at once where the layout allows it, else those below `columns` one by one.
template <DType T>
__device__ __forceinline__ void load_columns(const typename tile::Element<T>::Stored* from, int64_t step, bool wide,
                                             int columns, typename tile::Element<T>::Number (&v)[tile::kLanes<T>]) {
    if (wide && columns >= tile::kLanes<T>) {
        tile::load_wide<T>(from, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < tile::kLanes<T>; ++i) v[i] = i < columns ? tile::Element<T>::load(from[i * step]) : 0;
}
template <DType T>
__device__ __forceinline__ void store_columns(typename tile::Element<T>::Stored* to, int64_t step, bool wide,
                                              int columns,
                                              const typename tile::Element<T>::Number (&v)[tile::kLanes<T>]) {
    if (wide && columns >= tile::kLanes<T>) {
        tile::store_wide<T>(to, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < tile::kLanes<T>; ++i)
        if (i < columns) to[i * step] = tile::Element<T>::store(v[i]);
}

// Finishes columns n .. n + kLanes - 1 of row m; (m, n) is inside the matrix.
template <DType T>
__device__ __forceinline__ void finish(const MatmulParams& p, const BatchEntry<T>& entry, int64_t m, int64_t n,
                                       typename tile::Element<T>::Number (&v)[tile::kLanes<T>]) {
    using Number = typename tile::Element<T>::Number;
    using Stored = typename tile::Element<T>::Stored;
    constexpr int kLanes = tile::kLanes<T>;
    const int columns = static_cast<int>(p.n - n < kLanes ? p.n - n : kLanes);
    Number other[kLanes] = {};
    if (p.bias != nullptr)
        load_columns<T>(static_cast<const Stored*>(p.bias) + m * p.bias_row + n * p.bias_column, p.bias_column,
                        p.wide_bias, columns, other);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] = static_cast<Number>(p.alpha) * v[i] + other[i];
    if (p.preact.data != nullptr)
        store_columns<T>(entry.preact + m * p.preact.row + n * p.preact.column, p.preact.column, p.wide_preact, columns,
                         v);
    if (p.activation != 0) activate(v, p.activation, static_cast<Number>(p.p0), static_cast<Number>(p.p1));
    if (p.residual.data != nullptr) {
        load_columns<T>(entry.residual + m * p.residual.row + n * p.residual.column, p.residual.column, p.wide_residual,
                        columns, other);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) v[i] += static_cast<Number>(p.beta) * other[i];
    }
    store_columns<T>(entry.out + m * p.out.row + n * p.out.column, p.out.column, p.wide_out, columns, v);
}

// The row of the workspace that holds the partial sums of row m.
template <class Number>
__device__ __forceinline__ Number* workspace_row(const MatmulParams& p, int64_t split, int64_t local_batch, int64_t m) {
    return static_cast<Number*>(p.workspace) + ((split * p.batches + local_batch) * p.m + m) * p.workspace_pitch;
}

// Writes a staged tile, whose first element is (m0, n0), by the whole block.
template <DType T, int Threads, int Rows, int Columns>
__device__ __forceinline__ void write_tile(const MatmulParams& p, const BatchEntry<T>& entry,
                                           tile::Staging<typename tile::Element<T>::Number, Rows, Columns> staging,
                                           int64_t m0, int64_t n0) {
    using Number = typename tile::Element<T>::Number;
    constexpr int kLanes = tile::kLanes<T>;
    constexpr int kPerRow = Columns / kLanes;
#pragma unroll 1
    for (int i = threadIdx.x; i < Rows * kPerRow; i += Threads) {
        const int row = i / kPerRow, column = i % kPerRow * kLanes;
        const int64_t m = m0 + row, n = n0 + column;
        if (m >= p.m || n >= p.n) continue;
        Number v[kLanes];
        staging.get(row, column, v);
        if (p.splits == 1) {
            finish<T>(p, entry, m, n, v);
        } else {
            // The pitch is a multiple of the chunk: columns beyond n are zeros that nobody reads.
            Number* to = workspace_row<Number>(p, blockIdx.y, blockIdx.z, m) + n;
            tile::store_wide<kLanes == 4 ? DType::f32 : DType::f64>(to, v);
        }
    }
}

}  // namespace nk::cuda
