// Tensor-core matmul: C tile [BM][BN] = A tile row x B tile column, by mma.sync.
//
// A block walks along k in steps of BK. cp.async brings [BM][BK] of A and [BK][BN] of B into a ring of Stages stages
// (tile/main_loop.h); each of its warps owns a WM x WN part of the tile in registers (tile/warp_tile.h). Operands lie
// in shared memory as they lie in global memory (k-major or outer-major); the layouts differ in which ldmatrix reads
// them.
#pragma once

#include "../product/mma.h"
#include "operands.h"

namespace nk::cuda {

// The elements of an operand are those of T; f32 elements are rounded to tf32 on the way to the tensor core.
template <DType T, class Tile, bool AKMajor, bool BKMajor>
__device__ __forceinline__ void mma_matmul(const MatmulParams& p, const tile::Work& work) {
    constexpr int kBytes = size_of(T);
    constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BKBytes / kBytes;
    using A = MmaOperand<true, AKMajor, BM, BK, kBytes, Tile::WM, Tile::kThreads>;
    using B = MmaOperand<false, BKMajor, BN, BK, kBytes, Tile::WN, Tile::kThreads>;
    using Warp = tile::WarpTile<T, Tile::WM, Tile::WN, Tile::BKBytes, typename A::Map, typename B::Map>;

    extern __shared__ __align__(1024) char shared[];
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
    const BatchEntry<T> entry(p, p.batch_begin + work.batch);
    const tile::KRange k = tile::split_range(work.split, p.k, p.k_per_split);
    typename A::Copy copy_a(entry.walk_a(p, m0, k));
    typename B::Copy copy_b(entry.walk_b(p, n0, k));
    typename Tile::Ring ring(shared);
    const int warp = threadIdx.x / 32;
    Warp sums(warp % Tile::kWarpsM, warp / Tile::kWarpsM, threadIdx.x % 32);
    tile::main_loop(sums, ring, copy_a, copy_b, static_cast<int>((k.end - k.begin + BK - 1) / BK));

    ring.drain();
    const tile::Staging<float, BM, BN> staging{shared};
    sums.put(staging);
    __syncthreads();
    write_tile<T, Tile::kThreads>(p, entry, staging, work, m0, n0);
}

}  // namespace nk::cuda

// One kernel: its name says element, layout (of A, then of B: n as the matrix is written, t transposed) and tile.
#define NK_MMA_KERNEL(element, layout, T, Tile, a_k_major, b_k_major, size)                            \
    extern "C" __global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSM)                   \
        matmul_mma_##element##_##layout##_##size(const __grid_constant__ nk::cuda::MatmulParams p) {   \
        nk::cuda::mma_matmul<nk::DType::T, Tile, a_k_major, b_k_major>(p, nk::cuda::work_of_block(p)); \
    }
#define NK_MMA_KERNELS(element, T, Tile, size)              \
    NK_MMA_KERNEL(element, nn, T, Tile, true, false, size)  \
    NK_MMA_KERNEL(element, nt, T, Tile, true, true, size)   \
    NK_MMA_KERNEL(element, tn, T, Tile, false, false, size) \
    NK_MMA_KERNEL(element, tt, T, Tile, false, true, size)
