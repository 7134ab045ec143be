// What happens to a sum before it is written: v = alpha * sum + bias, kept as the preactivation if wanted, then
// activation(v) + beta * residual, rounded once. With k split over blocks the sums go to the workspace instead, and a
// second kernel does the rest.
//
// Where results lie is the product's business. Its Results<T> says where column n of row m of each tensor is, and how
// many elements lie between neighbours of a row:
//
//   out(m, n), preact(m, n), residual(m, n)   pointers;  out_step, preact_step, residual_step   numbers
#pragma once

#include "../tile/scheduler.h"
#include "../tile/staging.h"
#include "../tile/unit.h"
#include "activate.h"
#include "params.h"

namespace nk::cuda {

// Loads or stores a piece of the columns of one row, at once where the layout allows it, else those below `columns` one
// by one.
template <DType T>
__device__ __forceinline__ void load_columns(const memory_t<T>* from, int64_t step, bool wide, int columns,
                                             compute_t<T> (&v)[kPiece<T>]) {
    if (wide && columns >= kPiece<T>) {
        load_piece<T>(from, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) v[i] = i < columns ? to_compute<T>(from[i * step]) : 0;
}
template <DType T>
__device__ __forceinline__ void store_columns(memory_t<T>* to, int64_t step, bool wide, int columns,
                                              const compute_t<T> (&v)[kPiece<T>]) {
    if (wide && columns >= kPiece<T>) {
        store_piece<T>(to, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i)
        if (i < columns) to[i * step] = to_memory<T>(v[i]);
}

// Finishes the first `columns` of n .. n + kPiece - 1 of row m. Activates: whether there may be an activation.
template <DType T, bool Activates = true, class Results>
__device__ __forceinline__ void finish(const EpilogueParams& p, const Results& results, int64_t m, int64_t n,
                                       int columns, compute_t<T> (&v)[kPiece<T>]) {
    using Number = compute_t<T>;
    constexpr int N = kPiece<T>;
    Number other[N] = {};
    if (p.bias != nullptr)
        load_columns<T>(element<T>(p.bias, m * p.bias_row + n * p.bias_column), p.bias_column, p.wide_bias, columns,
                        other);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = static_cast<Number>(p.alpha) * v[i] + other[i];
    if (p.has_preact) store_columns<T>(results.preact(m, n), results.preact_step, p.wide_preact, columns, v);
    if constexpr (Activates)
        if (p.activation != 0) activate(v, p.activation, static_cast<Number>(p.p0), static_cast<Number>(p.p1));
    if (p.has_residual) {
        load_columns<T>(results.residual(m, n), results.residual_step, p.wide_residual, columns, other);
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] += static_cast<Number>(p.beta) * other[i];
    }
    store_columns<T>(results.out(m, n), results.out_step, p.wide_out, columns, v);
}

// All of them that exist; (m, n) is inside the matrix.
template <DType T, class Results>
__device__ __forceinline__ void finish(const EpilogueParams& p, const Results& results, int64_t m, int64_t n,
                                       compute_t<T> (&v)[kPiece<T>]) {
    constexpr int N = kPiece<T>;
    finish<T>(p, results, m, n, static_cast<int>(p.n - n < N ? p.n - n : N), v);
}

// The row of the workspace that holds the partial sums of row m.
template <class Number>
__device__ __forceinline__ Number* workspace_row(const EpilogueParams& p, int64_t split, int64_t local_batch,
                                                 int64_t m) {
    return static_cast<Number*>(p.workspace) + ((split * p.batches + local_batch) * p.m + m) * p.workspace_pitch;
}

// Writes a staged tile, whose first element is (m0, n0), by the whole block.
template <DType T, int Threads, class Results, int Rows, int Columns>
__device__ __forceinline__ void write_tile(const EpilogueParams& p, const Results& results,
                                           tile::Staging<compute_t<T>, Rows, Columns> staging, const tile::Work& work,
                                           int64_t m0, int64_t n0) {
    using Number = compute_t<T>;
    constexpr int N = kPiece<T>;
    constexpr int kPerRow = Columns / N;
#pragma unroll 1
    for (int i = threadIdx.x; i < Rows * kPerRow; i += Threads) {
        const int row = i / kPerRow, column = i % kPerRow * N;
        const int64_t m = m0 + row, n = n0 + column;
        if (m >= p.m || n >= p.n) continue;
        Number v[N];
        staging.get(row, column, v);
        if (p.splits == 1) {
            finish<T>(p, results, m, n, v);
        } else {
            // The pitch is a multiple of the piece: columns beyond n are zeros that nobody reads.
            ptx::store_16(workspace_row<Number>(p, work.split, work.batch, m) + n, v);
        }
    }
}

}  // namespace nk::cuda
