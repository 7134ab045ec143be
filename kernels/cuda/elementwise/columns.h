// out[r, c] elementwise and, in the same pass, the sum of each column. A block holds a strip of columns over one part
// of the rows; its 256 threads are 2^lanes_log2 side by side along the columns and the rest below each other:
//
//                 lane 0      lane 1     ...      each lane one unit of adjacent columns (one column without `vector`)
//   row group 0  [ . . . . ][ . . . . ]
//   row group 1  [ . . . . ][ . . . . ]           row group y takes rows begin + y, begin + y + groups, ...
//   ...
//
// A thread adds its rows in order, the block adds its row groups as a binary tree, and elementwise_finish adds the
// parts in order: no atomics, so the sums are the same bits at every run.
#pragma once

#include "../tile/kernel.h"
#include "../tile/unit.h"
#include "params.h"

namespace nk::cuda {

// Adds scratch[i][lane + lanes * y] over all row groups y, for i < n; afterwards group 0 holds the totals.
template <int W, class C>
__device__ __forceinline__ void add_row_groups(C (&scratch)[W][kColumnThreads], int n, int lanes, int group,
                                               int groups) {
#pragma unroll 1
    for (int half = groups / 2; half > 0; half /= 2) {
        __syncthreads();
        if (group < half)
            for (int i = 0; i < n; ++i) scratch[i][threadIdx.x] += scratch[i][threadIdx.x + half * lanes];
    }
}

// Op: `inputs`, and apply(p, row, apart, in, out, addend) on a unit's worth of places; place i is of row + i * apart.
// Params say where row r and column c lie in memory.
template <DType T, class Op, class Params>
__device__ __forceinline__ void reduce_columns(const Params& p) {
    constexpr int W = kUnit<T>, N = kPiece<T>, I = Op::inputs, kAhead = units_ahead(I);
    using C = compute_t<T>;
    __shared__ C scratch[W][kColumnThreads];

    const int lanes = 1 << p.lanes_log2, groups = kColumnThreads >> p.lanes_log2;
    const int lane = threadIdx.x & (lanes - 1), group = threadIdx.x >> p.lanes_log2;
    const int64_t column = (static_cast<int64_t>(blockIdx.x) * lanes + lane) * (p.vector ? W : 1);
    const int64_t begin = blockIdx.y * p.rows_per_part;
    const int64_t end = begin + p.rows_per_part < p.rows ? begin + p.rows_per_part : p.rows;

    const void* in_at[I];
    int64_t at[1 + I];
    p.column_at(column < p.columns ? column : 0, at);
    void* const out_at = element<T>(p.out, at[0]);
#pragma unroll
    for (int k = 0; k < I; ++k) in_at[k] = element<T>(p.in[k], at[1 + k]);

    C sum[W] = {};
    if (column < p.columns) {
        // With units a step is one row of W columns; without, it is W rows of one column.
        const int64_t step = p.vector ? groups : groups * W;
        for (int64_t batch = begin + group; batch < end; batch += kAhead * step) {
            Unit ahead[kAhead][I] = {};
            if (p.vector) {
#pragma unroll
                for (int a = 0; a < kAhead; ++a) {
                    const int64_t r = batch + a * step;
                    if (r >= end) break;
                    p.row_at(r, at);
#pragma unroll
                    for (int k = 0; k < I; ++k) {
                        const memory_t<T>* e = element<T>(in_at[k], at[1 + k]);
                        ahead[a][k] = p.same_in_row(k) ? splat<T>(*e) : load_unit(e);
                    }
                }
            }
#pragma unroll 1
            for (int64_t r = batch; r < end && r < batch + kAhead * step; r += step) {
                Unit result = {};
#pragma unroll 1
                for (int piece = 0; piece < kPieces<T>; ++piece) {
                    C in[I][N], out[1][N], addend[N];
                    const int64_t row = r + piece * N * groups;  // without units
                    if (p.vector) {
#pragma unroll
                        for (int k = 0; k < I; ++k) take_piece<T>(ahead[0][k], in[k]);
                    } else {
#pragma unroll
                        for (int i = 0; i < N; ++i) {
                            const bool exists = row + i * groups < end;
                            p.row_at(exists ? row + i * groups : r, at);
#pragma unroll
                            for (int k = 0; k < I; ++k) in[k][i] = exists ? load<T>(in_at[k], at[1 + k]) : C(0);
                        }
                    }

                    Op::template apply<N>(p, p.vector ? r : row, p.vector ? 0 : groups, in, out, addend);

                    if (p.vector) {
                        put_piece<T>(out[0], result);
#pragma unroll
                        for (int i = 0; i < N; ++i) {  // the sums pass by as the pieces do
                            const C total = sum[i] + addend[i];
                            if constexpr (W > N) sum[i] = sum[W - N + i];
                            sum[W - N + i] = total;
                        }
                    } else {
#pragma unroll
                        for (int i = 0; i < N; ++i) {
                            if (row + i * groups >= end) break;
                            p.row_at(row + i * groups, at);
                            if (p.out) store<T>(out_at, at[0], out[0][i]);
                            sum[0] += addend[i];
                        }
                    }
                }
                if (!p.vector) continue;
                p.row_at(r, at);
                if (p.out) store_unit(element<T>(out_at, at[0]), result);
#pragma unroll
                for (int a = 0; a + 1 < kAhead; ++a)
#pragma unroll
                    for (int k = 0; k < I; ++k) ahead[a][k] = ahead[a + 1][k];
            }
        }
    }
    if (!p.sums && !p.partial) return;

#pragma unroll
    for (int i = 0; i < W; ++i) scratch[i][threadIdx.x] = sum[i];
    const int n = p.vector ? W : 1;
    add_row_groups(scratch, n, lanes, group, groups);
    if (group != 0 || column >= p.columns) return;
    for (int i = 0; i < n; ++i) {
        if (p.partial)
            static_cast<C*>(p.partial)[blockIdx.y * p.columns + column + i] = scratch[i][threadIdx.x];
        else
            store<T>(p.sums, (column + i) * p.sums_stride, scratch[i][threadIdx.x]);
    }
}

// sums[c] = partial[0, c] + partial[1, c] + ..., the parts dealt out to the row groups and then added as above.
template <DType T>
__device__ __forceinline__ void finish_columns(const FinishParams& p) {
    using C = compute_t<T>;
    __shared__ C scratch[1][kColumnThreads];
    const int lanes = 1 << p.lanes_log2, groups = kColumnThreads >> p.lanes_log2;
    const int lane = threadIdx.x & (lanes - 1), group = threadIdx.x >> p.lanes_log2;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * lanes + lane;
    C sum = 0;
    if (column < p.columns) {
#pragma unroll 4
        for (int part = group; part < p.parts; part += groups)
            sum += static_cast<const C*>(p.partial)[part * p.columns + column];
    }
    scratch[0][threadIdx.x] = sum;
    add_row_groups(scratch, 1, lanes, group, groups);
    if (group == 0 && column < p.columns) store<T>(p.sums, column * p.sums_stride, scratch[0][threadIdx.x]);
}

}  // namespace nk::cuda
