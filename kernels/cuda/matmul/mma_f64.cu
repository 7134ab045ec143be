// f64 on the tensor cores: mma.sync m8n8k4 in double precision, with IEEE rounding of every multiply-add.
//
// A block of 4 warps computes a 64 x 64 tile, each warp 32 x 32. Operands are brought as [16][64] by cp.async whatever
// their layout; a fragment of 8 x 4 doubles is one load per lane: lane 4 g + t takes A (row g, k t) or B (k t, column
// g) and holds the sums of row g, columns 2t and 2t + 1.
#include "../ptx/mma.h"
#include "../tile/element_copy.h"
#include "../tile/main_loop.h"
#include "operands.h"

namespace nk::cuda {

struct F64Tile {
    static constexpr int BM = 64, BN = 64, BK = 16, WM = 32, WN = 32, Stages = 3;
    static constexpr int kThreads = 128, kBlocksPerSM = 3;
    using Copy = tile::ElementCopy<64, BK, 8, kThreads>;
    using Ring = tile::GroupRing<Stages, 2 * Copy::kTileBytes>;  // 17 KB a stage, 51 KB in all
    static_assert(Ring::kBytes >= BM * BN * 8, "the finished tile is staged in the ring's memory");
};

__device__ __forceinline__ void f64_matmul(const MatmulParams& p, const tile::Work& work) {
    using Tile = F64Tile;
    constexpr int kMs = Tile::WM / 8, kNs = Tile::WN / 8;
    constexpr int kPitch = tile::kElementPitch<64>;

    extern __shared__ __align__(1024) char shared[];
    const int64_t m0 = int64_t{work.tile.m} * Tile::BM, n0 = int64_t{work.tile.n} * Tile::BN;
    const BatchEntry<DType::f64> entry(p, p.batch_begin + work.batch);
    const tile::KRange range = tile::split_range(work.split, p.k, p.k_per_split);
    Tile::Copy copy_a(entry.walk_a(p, m0, range)), copy_b(entry.walk_b(p, n0, range));
    Tile::Ring ring(shared);

    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int warp_m = warp % 2 * Tile::WM, warp_n = warp / 2 * Tile::WN;
    double sum[kMs][kNs][2] = {};
    const int tiles = static_cast<int>((range.end - range.begin + Tile::BK - 1) / Tile::BK);
    tile::tile_loop(ring, copy_a, copy_b, tiles, [&](const char* tile_a, const char* tile_b) {
        const double* const a = reinterpret_cast<const double*>(tile_a) + t * kPitch + warp_m + g;
        const double* const b = reinterpret_cast<const double*>(tile_b) + t * kPitch + warp_n + g;
#pragma unroll
        for (int k = 0; k < Tile::BK; k += 4) {
            double x[kMs], y[kNs];
#pragma unroll
            for (int m = 0; m < kMs; ++m) x[m] = a[k * kPitch + m * 8];
#pragma unroll
            for (int n = 0; n < kNs; ++n) y[n] = b[k * kPitch + n * 8];
#pragma unroll
            for (int m = 0; m < kMs; ++m)
#pragma unroll
                for (int n = 0; n < kNs; ++n) ptx::mma_m8n8k4_f64(sum[m][n], x[m], y[n]);
        }
    });

    ring.drain();
    const tile::Staging<double, Tile::BM, Tile::BN> staging{shared};
#pragma unroll
    for (int m = 0; m < kMs; ++m)
#pragma unroll
        for (int n = 0; n < kNs; ++n)
            staging.put_pair(warp_m + m * 8 + g, warp_n + n * 8 + t * 2, sum[m][n][0], sum[m][n][1]);
    __syncthreads();
    write_tile<DType::f64, Tile::kThreads>(p, entry, staging, work, m0, n0);
}

}  // namespace nk::cuda

extern "C" __global__ void __launch_bounds__(nk::cuda::F64Tile::kThreads, nk::cuda::F64Tile::kBlocksPerSM)
    matmul_mma_f64_64x64(const __grid_constant__ nk::cuda::MatmulParams p) {
    nk::cuda::f64_matmul(p, nk::cuda::work_of_block(p));
}
