// What attention's kernels on the tensor cores share: operands, parts of their tiles, and sums that pass through features.
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
template <bool IsA, bool AlongRows, int Rows, int D, int WarpRows, int Threads>
struct HeadOperand {
    static constexpr int kOuter = AlongRows ? Rows : D, kK = AlongRows ? D : Rows;
    using Map = tile::FragmentMap<IsA, AlongRows, kOuter, kK, 2, AlongRows ? WarpRows : D>;
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

// Calls f(s[m][0], n) for each 8 columns n in turn, in a loop that is not unrolled: the sums pass through the front.
template <int Ms, int Ns, class F>
__device__ __forceinline__ void through_front(float (&s)[Ms][Ns][4], F f) {
#pragma unroll 1
    for (int n = 0; n < Ns; ++n) {
#pragma unroll
        for (int m = 0; m < Ms; ++m) {
            f(s[m][0], m, n);
            float front[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) front[i] = s[m][0][i];
#pragma unroll
            for (int k = 0; k + 1 < Ns; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) s[m][k][i] = s[m][k + 1][i];
#pragma unroll
            for (int i = 0; i < 4; ++i) s[m][Ns - 1][i] = front[i];
        }
    }
}

// sum += W X where the tile X, [rows][D] in shared memory, has NaN or infinity in rows that have no share (0) in W:
// those are not looked at. Slow, and taken only when a result is NaN.
template <DType T, class Swizzle, int Ms, int Ns, int Cs>
__device__ __forceinline__ void careful_product(float (&sum)[Ms][Cs][4], float (&w)[Ms][Ns][4], const char* tile) {
    const int lane = threadIdx.x % kWarp;
    through_front(w, [&](const float (&front)[4], int m, int n) {
#pragma unroll 1
        for (int j = 0; j < 8; ++j) {
            float share[2];
#pragma unroll
            for (int half = 0; half < 2; ++half)
                share[half] = __shfl_sync(kAllLanes, j % 2 ? front[2 * half + 1] : front[2 * half], lane / 4 * 4 + j / 2);
#pragma unroll
            for (int c = 0; c < Cs; ++c) {
                const uint32_t pair =
                    *reinterpret_cast<const uint32_t*>(tile + Swizzle::offset(n * 8 + j, c) + lane % 4 * 4);
                const float x[2] = {to_compute<T>(static_cast<uint16_t>(pair)),
                                    to_compute<T>(static_cast<uint16_t>(pair >> 16))};
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (share[i / 2] != 0) sum[m][c][i] = fma(share[i / 2], x[i % 2], sum[m][c][i]);
            }
        }
    });
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
                                           int columns, bool wide) {
    const int lane = threadIdx.x % kWarp;
    constexpr int kChunks = Cs;  // of 8 numbers, 16 bytes
#pragma unroll
    for (int m = 0; m < Ms; ++m)
#pragma unroll
        for (int c = 0; c < Cs; ++c)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float lo = sum[m][c][2 * half] * by[m][half], hi = sum[m][c][2 * half + 1] * by[m][half];
                *reinterpret_cast<uint32_t*>(tile + Swizzle::offset(first + m * 16 + lane / 4 + half * 8, c) +
                                             lane % 4 * 4) = T == DType::bf16 ? ptx::pack_bf16(lo, hi)
                                                                              : ptx::pack_f16(lo, hi);
            }
    __syncwarp();
#pragma unroll 1
    for (int i = lane; i < Ms * 16 * kChunks; i += kWarp) {
        const int row = first + i / kChunks, chunk = i % kChunks;
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
