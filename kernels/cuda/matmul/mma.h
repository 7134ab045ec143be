// Tensor-core matmul: C tile [BM][BN] = A tile row x B tile column, by mma.sync.
//
// A block walks along k in steps of BK. cp.async brings [BM][BK] of A and [BK][BN] of B into a ring of Stages stages;
// each of its warps owns a WM x WN part of the tile in registers and feeds it from ldmatrix, loading the fragments of
// the next 32 bytes of k while the tensor cores work on the present ones. Operands lie in shared memory as they lie in
// global memory (k-major or outer-major); the layouts differ in which ldmatrix reads them.
#pragma once

#include "../ptx/mma.h"
#include "../tile/copy.h"
#include "../tile/fragment.h"
#include "../tile/pipeline.h"
#include "epilogue.h"

namespace nk::cuda {

template <int BM_, int BN_, int BKBytes_, int WM_, int WN_, int Stages_, int BlocksPerSM_>
struct MmaTile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, Stages = Stages_, BKBytes = BKBytes_;
    static constexpr int kWarpsM = BM / WM, kWarpsN = BN / WN;
    static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
    static constexpr int kBlocksPerSM = BlocksPerSM_;  // what the register budget is cut for
    static constexpr int kStageBytes = (BM + BN) * BKBytes;
    static_assert(WM % 16 == 0 && WN % 16 == 0, "whole fragments");
    static_assert(BKBytes % 64 == 0,
                  "two steps of k at least: the ring advances in the last one, refills in the first");
    static_assert(Stages * kStageBytes >= BM * BN * 4, "the finished tile is staged in the ring's memory");
};

// The elements of an operand are those of T; f32 elements are rounded to tf32 on the way to the tensor core.
template <DType T, class Tile, bool AKMajor, bool BKMajor>
__device__ __forceinline__ void mma_matmul(const MatmulParams& p) {
    constexpr int kBytes = size_of(T);
    constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BKBytes / kBytes;
    constexpr int kSteps = Tile::BKBytes / 32;
    constexpr int kMs = Tile::WM / 16, kNs = Tile::WN / 8;
    using MapA = tile::FragmentMap<true, AKMajor, BM, BK, kBytes, Tile::WM>;
    using MapB = tile::FragmentMap<false, BKMajor, BN, BK, kBytes, Tile::WN>;
    using CopyA = tile::TileCopy<AKMajor, BM, BK, kBytes, Tile::kThreads, typename MapA::Swizzle>;
    using CopyB = tile::TileCopy<BKMajor, BN, BK, kBytes, Tile::kThreads, typename MapB::Swizzle>;
    constexpr int kBOffset = BM * Tile::BKBytes;  // B's tile lies behind A's in a stage

    extern __shared__ __align__(1024) char shared[];
    const tile::TileIndex at = tile::grouped_tile(blockIdx.x, p.tiles_m, p.tiles_n, p.group);
    const int64_t m0 = int64_t{at.m} * BM, n0 = int64_t{at.n} * BN;
    const BatchEntry<T> entry(p, p.batch_begin + blockIdx.z);
    const tile::KRange range = tile::split_range(blockIdx.y, p.k, p.k_per_split);

    CopyA copy_a(entry.a, {p.a.row * kBytes, p.a.column * kBytes}, m0, p.m, range.begin, p.a_access);
    CopyB copy_b(entry.b, {p.b.column * kBytes, p.b.row * kBytes}, n0, p.n, range.begin, p.b_access);
    tile::Ring<Tile::Stages, Tile::kStageBytes> ring(shared);
    const int64_t depth = range.end - range.begin;
    // Tiles that need no check of bounds come first: all whole ones of a block inside the matrices.
    const int tiles_inside = copy_a.inside() && copy_b.inside() ? static_cast<int>(depth / BK) : 0;
    int loaded = 0;
    auto load = [&] {
        if (loaded < tiles_inside) {
            copy_a.issue_inside(ring.writing());
            copy_b.issue_inside(ring.writing() + kBOffset);
        } else {
            const int64_t left = depth - int64_t{loaded} * BK;
            copy_a.issue(ring.writing(), left);
            copy_b.issue(ring.writing() + kBOffset, left);
        }
        ring.commit();
        ++loaded;
    };
#pragma unroll 1
    for (int stage = 0; stage < ring.kAhead; ++stage) load();

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_m = warp % Tile::kWarpsM, warp_n = warp / Tile::kWarpsM;
    const MapA map_a(warp_m, lane);
    const MapB map_b(warp_n, lane);
    float sum[kMs][kNs][4] = {};
    uint32_t a[2][kMs][4], b[2][kNs / 2][4];
    auto fetch = [&](int buffer, int step) {
        const char* tile_a = ring.reading();
        const char* tile_b = tile_a + kBOffset;
#pragma unroll
        for (int i = 0; i < kMs; ++i) tile::load_fragment<true>(a[buffer][i], tile_a, map_a, i * 16, step);
#pragma unroll
        for (int j = 0; j < kNs / 2; ++j) tile::load_fragment<false>(b[buffer][j], tile_b, map_b, j * 16, step);
        if constexpr (T == DType::f32) {
#pragma unroll
            for (int i = 0; i < kMs * 4; ++i) a[buffer][i / 4][i % 4] = ptx::to_tf32(a[buffer][i / 4][i % 4]);
#pragma unroll
            for (int j = 0; j < kNs * 2; ++j) b[buffer][j / 4][j % 4] = ptx::to_tf32(b[buffer][j / 4][j % 4]);
        }
    };

    ring.arrive();
    fetch(0, 0);
    const int tiles = static_cast<int>((depth + BK - 1) / BK);
#pragma unroll 1
    for (int i = 0; i < tiles; ++i) {
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            if (step == kSteps - 1) {  // the last fragments of this tile are in registers: on to the next tile
                ring.arrive();
                ring.advance();
            }
            fetch((step + 1) % 2, (step + 1) % kSteps);
            if (step == 0) load();  // into the stage that was read before: all warps have passed the last arrive
#pragma unroll
            for (int m = 0; m < kMs; ++m)
#pragma unroll
                for (int n = 0; n < kNs; ++n) {
                    const uint32_t b0 = b[step % 2][n / 2][n % 2 * 2], b1 = b[step % 2][n / 2][n % 2 * 2 + 1];
                    if constexpr (T == DType::f32)
                        ptx::mma_m16n8k8_tf32(sum[m][n], a[step % 2][m], b0, b1);
                    else
                        ptx::mma_m16n8k16<T>(sum[m][n], a[step % 2][m], b0, b1);
                }
        }
    }

    ring.drain();
    const tile::Staging<float, BM, BN> staging{shared};
    const int row = warp_m * Tile::WM + lane / 4, column = warp_n * Tile::WN + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < kMs; ++m)
#pragma unroll
        for (int n = 0; n < kNs; ++n) {
            staging.put_pair(row + m * 16, column + n * 8, sum[m][n][0], sum[m][n][1]);
            staging.put_pair(row + m * 16 + 8, column + n * 8, sum[m][n][2], sum[m][n][3]);
        }
    __syncthreads();
    write_tile<T, Tile::kThreads>(p, entry, staging, m0, n0);
}

}  // namespace nk::cuda

// One kernel: its name says element, layout (of A, then of B: n as the matrix is written, t transposed) and tile.
#define NK_MMA_KERNEL(element, layout, T, Tile, a_k_major, b_k_major, size)                          \
    extern "C" __global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSM)                 \
        matmul_mma_##element##_##layout##_##size(const __grid_constant__ nk::cuda::MatmulParams p) { \
        nk::cuda::mma_matmul<nk::DType::T, Tile, a_k_major, b_k_major>(p);                           \
    }
#define NK_MMA_KERNELS(element, T, Tile, size)              \
    NK_MMA_KERNEL(element, nn, T, Tile, true, false, size)  \
    NK_MMA_KERNEL(element, nt, T, Tile, true, true, size)   \
    NK_MMA_KERNEL(element, tn, T, Tile, false, false, size) \
    NK_MMA_KERNEL(element, tt, T, Tile, false, true, size)
