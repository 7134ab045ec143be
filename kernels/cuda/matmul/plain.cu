// The plain kernel: any strides, any alignment, every dtype, no asynchronous copies. It serves small products, where
// a large tile would leave the machine idle, and is the one to read first.
//
// A block of 256 threads computes a 32 x 32 tile; each thread keeps 2 x 2 numbers, its columns half a tile apart so
// that neighbours read neighbours. A and B pass through shared memory as numbers, [32 of k][32 + 1], with lanes along
// the direction in which the operand is contiguous.
#include "operands.h"

namespace nk::cuda {

inline constexpr int kPlainTile = 32, kPlainThreads = 256;

template <class Number>
struct PlainShared {
    Number a[kPlainTile][kPlainTile + 1], b[kPlainTile][kPlainTile + 1];  // [k][outer]; a column is free of conflicts
};

// Brings [32 of k][32 of the outer index], zeros outside.
template <DType T, class Number>
__device__ __forceinline__ void plain_load(Number (&to)[kPlainTile][kPlainTile + 1], const memory_t<T>* from,
                                           int64_t outer_step, int64_t k_step, int64_t outer_left, int64_t k_left) {
    const bool along_k = k_step == 1;
#pragma unroll
    for (int i = 0; i < kPlainTile * kPlainTile; i += kPlainThreads) {
        const int fast = (threadIdx.x + i) % kPlainTile, slow = (threadIdx.x + i) / kPlainTile;
        const int k = along_k ? fast : slow, outer = along_k ? slow : fast;
        to[k][outer] = k < k_left && outer < outer_left ? to_compute<T>(from[outer * outer_step + k * k_step]) : 0;
    }
}

template <DType T>
__device__ __forceinline__ void plain_matmul(const MatmulParams& p, const tile::Work& work) {
    using Number = compute_t<T>;
    using Staging = tile::Staging<Number, kPlainTile, kPlainTile>;
    __shared__ PlainShared<Number> tiles;
    __shared__ __align__(16) char staged[Staging::kBytes];
    const int64_t m0 = int64_t{work.tile.m} * kPlainTile, n0 = int64_t{work.tile.n} * kPlainTile;
    const BatchEntry<T> entry(p, p.batch_begin + work.batch);
    const tile::KRange range = tile::split_range(work.split, p.k, p.k_per_split);
    const int row = threadIdx.x / 16 * 2, column = threadIdx.x % 16;

    const memory_t<T>* const a = entry.a + m0 * p.a.row;
    const memory_t<T>* const b = entry.b + n0 * p.b.column;
    Number sum[2][2] = {};
#pragma unroll 1
    for (int64_t k = range.begin; k < range.end; k += kPlainTile) {
        plain_load<T>(tiles.a, a + k * p.a.column, p.a.row, p.a.column, p.m - m0, range.end - k);
        plain_load<T>(tiles.b, b + k * p.b.row, p.b.column, p.b.row, p.n - n0, range.end - k);
        __syncthreads();
#pragma unroll 8
        for (int i = 0; i < kPlainTile; ++i)
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int n = 0; n < 2; ++n)
                    sum[m][n] = fma(tiles.a[i][row + m], tiles.b[i][column + n * 16], sum[m][n]);
        __syncthreads();
    }

    const Staging staging{staged};
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 2; ++n) staging.put(row + m, column + n * 16, sum[m][n]);
    __syncthreads();
    write_tile<T, kPlainThreads>(p, entry, staging, work, m0, n0);
}

}  // namespace nk::cuda

// The last number is how many blocks of a multiprocessor the register budget is cut for.
#define NK_PLAIN_KERNEL(element, blocks)                                           \
    extern "C" __global__ void __launch_bounds__(nk::cuda::kPlainThreads, blocks)  \
        matmul_plain_##element(const __grid_constant__ nk::cuda::MatmulParams p) { \
        nk::cuda::plain_matmul<nk::DType::element>(p, nk::cuda::work_of_block(p)); \
    }

NK_PLAIN_KERNEL(f32, 3)
NK_PLAIN_KERNEL(f64, 2)
NK_PLAIN_KERNEL(f16, 3)
NK_PLAIN_KERNEL(bf16, 3)
