// f64 on the tensor cores: mma.sync m8n8k4 in double precision, with IEEE rounding of every multiply-add.
#include "../product/f64.h"
#include "operands.h"

namespace nk::cuda {

__device__ __forceinline__ void f64_matmul(const MatmulParams& p, const tile::Work& work) {
    using Tile = F64Tile;

    extern __shared__ __align__(1024) char shared[];
    const int64_t m0 = int64_t{work.tile.m} * Tile::BM, n0 = int64_t{work.tile.n} * Tile::BN;
    const BatchEntry<DType::f64> entry(p, p.batch_begin + work.batch);
    const tile::KRange range = tile::split_range(work.split, p.k, p.k_per_split);
    Tile::Copy copy_a(entry.walk_a(p, m0, range)), copy_b(entry.walk_b(p, n0, range));
    Tile::Ring ring(shared);

    F64Sums sums;
    const int tiles = static_cast<int>((range.end - range.begin + Tile::BK - 1) / Tile::BK);
    tile::tile_loop(ring, copy_a, copy_b, tiles,
                    [&](const char* tile_a, const char* tile_b) { sums.multiply(tile_a, tile_b); });

    ring.drain();
    const tile::Staging<double, Tile::BM, Tile::BN> staging{shared};
    sums.put(staging);
    __syncthreads();
    write_tile<DType::f64, Tile::kThreads>(p, entry, staging, work, m0, n0);
}

}  // namespace nk::cuda

extern "C" __global__ void __launch_bounds__(nk::cuda::F64Tile::kThreads, nk::cuda::F64Tile::kBlocksPerSM)
    matmul_mma_f64_64x64(const __grid_constant__ nk::cuda::MatmulParams p) {
    nk::cuda::f64_matmul(p, nk::cuda::work_of_block(p));
}
