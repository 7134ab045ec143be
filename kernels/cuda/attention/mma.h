// What attention's kernels on the tensor cores share: operands, parts of their tiles, and sums that pass through
// features.
//
// A warp has 16 Ms rows of scores [rows][columns] in the accumulators of mma.sync (../tile/fragment.h): lane 4 g + t
// has rows g and g + 8 of each 16 and columns 2 t and 2 t + 1 of each 8.
#pragma once

#include "../tile/copy.h"
#include "../tile/reduce.h"
#include "../tile/ring.h"
#include "../tile/warp_tile.h"
#include "score.h"

namespace nk::cuda {

// An operand of a product whose rows in memory are rows of queries or keys. Along rows: they are the outer index
// (scores), else k (weighted sums).
// `WarpPart`: of the outer index, what a warp has.
template <bool IsA, bool AlongRows, int Rows, int D, int WarpPart, int Threads>
struct HeadOperand {
    static constexpr int kOuter = AlongRows ? Rows : D, kK = AlongRows ? D : Rows;
    using Map = tile::FragmentMap<IsA, AlongRows, kOuter, kK, 2, WarpPart>;
    using Shape = tile::CopyShape<AlongRows, kOuter, kK, 2, Threads>;
    using Walk = typename Shape::template Linear<AlongRows ? tile::Along::outer : tile::Along::k>;
    using Copy = tile::TileCopy<Shape, typename Map::Swizzle, Walk>;
    using Swizzle = typename Map::Swizzle;

    // Rows from `first` on; `begin` is where row 0 begins.
    static __device__ __forceinline__ tile::MatrixWalk walk(const void* begin, const AttentionOperand& x, int64_t first,
                                                            int64_t rows, int64_t columns, int access) {
        const int64_t row = x.row * 2, column = x.column * 2;
        if constexpr (AlongRows) return {begin, {row, column}, first, rows, 0, columns, access};
        return {begin, {column, row}, 0, columns, first, rows, access};
    }
};

// Of rows of a warp or block: columns that some of them see (or are seen by), and columns that all do. Ranges move on
// with the rows.
struct Reach {
    int any_begin = 0, any_end = 0, all_begin = 0, all_end = 0;

    template <class Range>
    __device__ __forceinline__ Reach(Range range, int first, int count, int rows) {
        if (first >= rows) return;
        const KeyRange a = range(first), b = range(min(first + count, rows) - 1);
        any_begin = static_cast<int>(a.begin), any_end = static_cast<int>(b.end);
        all_begin = static_cast<int>(b.begin), all_end = static_cast<int>(a.end);
    }
    __device__ __forceinline__ bool some(int begin, int end) const { return begin < any_end && end > any_begin; }
    __device__ __forceinline__ bool all(int begin, int end) const { return begin >= all_begin && end <= all_end; }
};

// Sets to -infinity what lies outside the ranges of its rows; the sums' columns begin at `first`.
template <int Ms, int Ns, class Range>
__device__ __forceinline__ void hide(float (&s)[Ms][Ns][4], Range range, int row0, int first) {
    first += threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < Ms; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const KeyRange r = range(row0 + m * 16 + half * 8);
            const int begin = static_cast<int>(r.begin) - first, end = static_cast<int>(r.end) - first;
#pragma unroll
            for (int n = 0; n < Ns; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i)
                    if (n * 8 + i < begin || n * 8 + i >= end) s[m][n][2 * half + i] = -INFINITY;
        }
}

// Brings the first 8 columns to the end, and the others forward.
template <int Ms, int Ns>
__device__ __forceinline__ void rotate(float (&s)[Ms][Ns][4]) {
#pragma unroll
    for (int m = 0; m < Ms; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float front = s[m][0][i];
#pragma unroll
            for (int n = 0; n + 1 < Ns; ++n) s[m][n][i] = s[m][n + 1][i];
            s[m][Ns - 1][i] = front;
        }
}

// Calls f(m, n) for each 8 columns in turn, in a loop that is not unrolled: those at work are s[m][0], and others of
// the same shape go along.
template <class F, int Ms, int Ns, class... Others>
__device__ __forceinline__ void through_front(F f, float (&s)[Ms][Ns][4], Others&... others) {
#pragma unroll 1
    for (int n = 0; n < Ns; ++n) {
#pragma unroll
        for (int m = 0; m < Ms; ++m) f(m, n);
        rotate(s);
        (rotate(others), ...);
    }
}

// sum += W X where the tile X, [rows][D] in shared memory, has NaN or infinity in rows that have no share (0) in W:
// those are not looked at. Slow, and taken only when a result is NaN. `chunk`: 8 columns of X where those of sum begin.
template <DType T, class Swizzle, int Ms, int Ns, int Cs>
__device__ __forceinline__ void careful_product(float (&sum)[Ms][Cs][4], float (&w)[Ms][Ns][4], const char* tile,
                                                int chunk = 0) {
    const int lane = threadIdx.x % kWarp;
    const auto add = [&](int m, int n) {
        const float (&front)[4] = w[m][0];
#pragma unroll 1
        for (int j = 0; j < 8; ++j) {
            float share[2];
#pragma unroll
            for (int half = 0; half < 2; ++half)
                share[half] =
                    __shfl_sync(kAllLanes, j % 2 ? front[2 * half + 1] : front[2 * half], lane / 4 * 4 + j / 2);
#pragma unroll
            for (int c = 0; c < Cs; ++c) {
                const uint32_t pair =
                    *reinterpret_cast<const uint32_t*>(tile + Swizzle::offset(n * 8 + j, chunk + c) + lane % 4 * 4);
                const float x[2] = {to_compute<T>(static_cast<uint16_t>(pair)),
                                    to_compute<T>(static_cast<uint16_t>(pair >> 16))};
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (share[i / 2] != 0) sum[m][c][i] = fma(share[i / 2], x[i % 2], sum[m][c][i]);
            }
        }
    };
    through_front(add, w);
}

template <int Ms, int Ns>
__device__ __forceinline__ bool any_nan(const float (&s)[Ms][Ns][4]) {
    float zero = 0;
#pragma unroll
    for (int m = 0; m < Ms; ++m)
#pragma unroll
        for (int n = 0; n < Ns; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) zero = fma(s[m][n][i], 0.f, zero);
    return zero != zero;
}

// Puts the sums of a warp into its 16 Ms rows of a tile [rows][D] of 16-bit numbers in shared memory, and stores the
// rows that exist. `by`: a factor for rows g and g + 8.
template <DType T, class Swizzle, int Ms, int Cs>
__device__ __forceinline__ void store_rows(const float (&sum)[Ms][Cs][4], const float (&by)[Ms][2], char* tile,
                                           int first, memory_t<T>* to, const AttentionOperand& of_to, int rows,
                                           int columns, bool wide, int first_chunk = 0) {
    const int lane = threadIdx.x % kWarp;
    constexpr int kChunks = Cs;  // of 8 numbers, 16 bytes
#pragma unroll
    for (int m = 0; m < Ms; ++m)
#pragma unroll
        for (int c = 0; c < Cs; ++c)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float lo = sum[m][c][2 * half] * by[m][half], hi = sum[m][c][2 * half + 1] * by[m][half];
                *reinterpret_cast<uint32_t*>(
                    tile + Swizzle::offset(first + m * 16 + lane / 4 + half * 8, first_chunk + c) + lane % 4 * 4) =
                    T == DType::bf16 ? ptx::pack_bf16(lo, hi) : ptx::pack_f16(lo, hi);
            }
    __syncwarp();
#pragma unroll 1
    for (int i = lane; i < Ms * 16 * kChunks; i += kWarp) {
        const int row = first + i / kChunks, chunk = first_chunk + i % kChunks;
        if (row >= rows || chunk * 8 >= columns) continue;
        const uint4 v = *reinterpret_cast<const uint4*>(tile + Swizzle::offset(row, chunk));
        memory_t<T>* const at = to + row * of_to.row + chunk * 8 * of_to.column;
        if (wide) {
            *reinterpret_cast<uint4*>(at) = v;
            continue;
        }
        uint32_t word[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int k = 0; k < 8; ++k)
            if (chunk * 8 + k < columns) at[k * of_to.column] = static_cast<uint16_t>(word[k / 2] >> (16 * (k % 2)));
    }
}

}  // namespace nk::cuda
