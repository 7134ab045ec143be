// The plain kernels of attention: any strides, any sizes, every dtype and rule. Tiles of 32 queries and 32 keys; a
// block of 8 warps, of which each has 4 rows of a tile and each lane a column.
#pragma once

#include "../tile/reduce.h"
#include "score.h"

namespace nk::cuda {

inline constexpr int kPlainRows = kPlainTile * kWarp / kPlainThreads;  // of a thread
inline constexpr int kPlainBlocks = kPlainColumns / kPlainTile;        // of columns

template <class Number>
using PlainMatrix = Number[kPlainTile][kPlainTile + 1];  // a column is free of bank conflicts

// What a block keeps in shared memory: tiles, and what all threads know of the head.
template <DType T>
struct PlainShared {
    PlainMatrix<compute_t<T>> a, b, w;
    AttentionPlace place;
    HeadScores<T> scores;
};

// Rows begin .. end - 1 and columns below `columns` of a tile that exist; begin is above 0 where the tile begins
// before its sequence does.
struct PlainLimits {
    int begin, end;
};
__device__ __forceinline__ PlainLimits plain_limits(int64_t first, int64_t count) {
    const int64_t left = count - first;
    return {first < 0 ? static_cast<int>(-first) : 0, left < kPlainTile ? static_cast<int>(left) : kPlainTile};
}

// Brings [k][outer] of 32 x 32, zeros where nothing exists. `from` is where the tile begins.
template <DType T, class Number>
__device__ __forceinline__ void plain_load(PlainMatrix<Number>& to, const memory_t<T>* from, int64_t outer_step,
                                           int64_t k_step, PlainLimits outer, PlainLimits k) {
    const bool along_k = k_step == 1;
    const int fast = threadIdx.x % kPlainTile, slow = threadIdx.x / kPlainTile;
    const PlainLimits of_fast = along_k ? k : outer, of_slow = along_k ? outer : k;
    const int64_t slow_step = along_k ? outer_step : k_step;
    const bool in_fast = fast >= of_fast.begin && fast < of_fast.end;
    from += fast * (along_k ? k_step : outer_step);
#pragma unroll 1
    for (int i = slow; i < kPlainTile; i += kPlainThreads / kPlainTile) {
        const bool exists = in_fast && i >= of_slow.begin && i < of_slow.end;
        Number& place = along_k ? to[fast][i] : to[i][fast];
        place = exists ? to_compute<T>(from[i * slow_step]) : Number(0);
    }
}

// sum[m] += A[row + m] . B[lane] over `size` columns: both are [32 rows][size].
template <DType T, class Number>
__device__ __forceinline__ void plain_dots(Number (&sum)[kPlainRows], PlainMatrix<Number>& tile_a,
                                           PlainMatrix<Number>& tile_b, const memory_t<T>* a,
                                           const AttentionOperand& of_a, PlainLimits rows_a, const memory_t<T>* b,
                                           const AttentionOperand& of_b, PlainLimits rows_b, int64_t size) {
    const int row = threadIdx.x / kWarp * kPlainRows, lane = threadIdx.x % kWarp;
#pragma unroll 1
    for (int64_t k = 0; k < size; k += kPlainTile) {
        plain_load<T>(tile_a, a + k * of_a.column, of_a.row, of_a.column, rows_a, plain_limits(k, size));
        plain_load<T>(tile_b, b + k * of_b.column, of_b.row, of_b.column, rows_b, plain_limits(k, size));
        __syncthreads();
#pragma unroll 4
        for (int i = 0; i < kPlainTile; ++i)
#pragma unroll
            for (int m = 0; m < kPlainRows; ++m) sum[m] = fma(tile_a[i][row + m], tile_b[i][lane], sum[m]);
        __syncthreads();
    }
}

// A row's score of this lane's key becomes its power, beside what the row's sums were made of: the softmax goes on. A
// score of -infinity has none.
template <class Number>
__device__ __forceinline__ Number plain_power(Number score, Number& top, Number& total, Number (&sums)[kPlainBlocks]) {
    const Number next = Max{}(top, reduce_warp(score, Max{}));
    const Number from = next == minus_infinity<Number>() ? Number(0) : next;
    const Number share = score == minus_infinity<Number>() ? Number(0) : math::exp(score - from);
    const Number shrink = math::exp(top - from);
    top = next;
    total = total * shrink + reduce_warp(share, Add{});
#pragma unroll
    for (int block = 0; block < kPlainBlocks; ++block) sums[block] *= shrink;
    return share;
}

// sum[m][block] += W[row + m] X, over the 32 rows of X, for its columns from `first` on. W is [row of X][row]. What has
// no share (0) is not looked at: it may be NaN.
template <DType T, class Number>
__device__ __forceinline__ void plain_weighted(Number (&sum)[kPlainRows][kPlainBlocks], const PlainMatrix<Number>& w,
                                               PlainMatrix<Number>& tile_x, const memory_t<T>* x, int64_t row_step,
                                               int64_t column_step, PlainLimits rows, int64_t first, int64_t columns) {
    const int row = threadIdx.x / kWarp * kPlainRows, lane = threadIdx.x % kWarp;
#pragma unroll
    for (int block = 0; block < kPlainBlocks; ++block) {
        const int64_t column = first + block * kPlainTile;
        if (column >= columns) break;
        __syncthreads();
        plain_load<T>(tile_x, x + column * column_step, column_step, row_step, plain_limits(column, columns), rows);
        __syncthreads();
#pragma unroll 4
        for (int i = 0; i < kPlainTile; ++i)
#pragma unroll
            for (int m = 0; m < kPlainRows; ++m) {
                const Number share = w[i][row + m];
                if (share != 0) sum[m][block] = fma(share, tile_x[i][lane], sum[m][block]);
            }
    }
    __syncthreads();
}

}  // namespace nk::cuda
