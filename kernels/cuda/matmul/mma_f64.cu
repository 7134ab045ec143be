// f64 on the tensor cores: mma.sync m8n8k4 in double precision, with IEEE rounding of every multiply-add.
//
// A block of 4 warps computes a 64 x 64 tile, each warp 32 x 32. Operands are brought as [16][64] by cp.async whatever
// their layout; a fragment of 8 x 4 doubles is one load per lane: lane 4 g + t takes A (row g, k t) or B (k t, column
// g) and holds the sums of row g, columns 2t and 2t + 1.
#include "../ptx/mma.h"
#include "../tile/element_copy.h"
#include "../tile/pipeline.h"
#include "epilogue.h"

namespace nk::cuda {

struct F64Tile {
    static constexpr int BM = 64, BN = 64, BK = 16, WM = 32, WN = 32, Stages = 3;
    static constexpr int kThreads = 128, kBlocksPerSM = 3;
    using Copy = tile::ElementCopy<64, BK, 8, kThreads>;
    static constexpr int kStageBytes = 2 * Copy::kTileBytes;  // 17 KB, 51 KB in all
    static_assert(Stages * kStageBytes >= BM * BN * 8, "the finished tile is staged in the ring's memory");
};

__device__ __forceinline__ void f64_matmul(const MatmulParams& p) {
    using Tile = F64Tile;
    constexpr int kMs = Tile::WM / 8, kNs = Tile::WN / 8;
    constexpr int kPitch = tile::kElementPitch<64>;

    extern __shared__ __align__(1024) char shared[];
    const tile::TileIndex at = tile::grouped_tile(blockIdx.x, p.tiles_m, p.tiles_n, p.group);
    const int64_t m0 = int64_t{at.m} * Tile::BM, n0 = int64_t{at.n} * Tile::BN;
    const BatchEntry<DType::f64> entry(p, p.batch_begin + blockIdx.z);
    const tile::KRange range = tile::split_range(blockIdx.y, p.k, p.k_per_split);

    Tile::Copy copy_a(entry.a, {p.a.row * 8, p.a.column * 8}, m0, p.m, range.begin, p.a_access);
    Tile::Copy copy_b(entry.b, {p.b.column * 8, p.b.row * 8}, n0, p.n, range.begin, p.b_access);
    tile::Ring<Tile::Stages, Tile::kStageBytes> ring(shared);
    int64_t k_to_load = range.end - range.begin;
    const int tiles = static_cast<int>((k_to_load + Tile::BK - 1) / Tile::BK);
    auto load = [&] {
        copy_a.issue(ring.writing(), k_to_load);
        copy_b.issue(ring.writing() + Tile::Copy::kTileBytes, k_to_load);
        ring.commit();
        k_to_load -= Tile::BK;
    };
#pragma unroll 1
    for (int stage = 0; stage < ring.kAhead; ++stage) load();

    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int warp_m = warp % 2 * Tile::WM, warp_n = warp / 2 * Tile::WN;
    double sum[kMs][kNs][2] = {};
#pragma unroll 1
    for (int i = 0; i < tiles; ++i) {
        ring.arrive();
        load();  // into the stage of the tile before this one, which every warp has finished
        const double* a = reinterpret_cast<const double*>(ring.reading()) + t * kPitch + warp_m + g;
        const double* b =
            reinterpret_cast<const double*>(ring.reading() + Tile::Copy::kTileBytes) + t * kPitch + warp_n + g;
        ring.advance();
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
    }

    ring.drain();
    const tile::Staging<double, Tile::BM, Tile::BN> staging{shared};
#pragma unroll
    for (int m = 0; m < kMs; ++m)
#pragma unroll
        for (int n = 0; n < kNs; ++n)
            staging.put_pair(warp_m + m * 8 + g, warp_n + n * 8 + t * 2, sum[m][n][0], sum[m][n][1]);
    __syncthreads();
    write_tile<DType::f64, Tile::kThreads>(p, entry, staging, m0, n0);
}

}  // namespace nk::cuda

extern "C" __global__ void __launch_bounds__(nk::cuda::F64Tile::kThreads, nk::cuda::F64Tile::kBlocksPerSM)
    matmul_mma_f64_64x64(const __grid_constant__ nk::cuda::MatmulParams p) {
    nk::cuda::f64_matmul(p);
}
