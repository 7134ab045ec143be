// Full-precision f32 on the ordinary cores: every product and sum in f32 by fused multiply-add.
#include "../product/simt.h"
#include "operands.h"

namespace nk::cuda {

template <class Tile>
__device__ __forceinline__ void simt_matmul(const MatmulParams& p, const tile::Work& work) {
    constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BK;

    extern __shared__ __align__(1024) char shared[];
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
    const BatchEntry<DType::f32> entry(p, p.batch_begin + work.batch);
    const tile::KRange range = tile::split_range(work.split, p.k, p.k_per_split);
    typename Tile::CopyA copy_a(entry.walk_a(p, m0, range));
    typename Tile::CopyB copy_b(entry.walk_b(p, n0, range));
    typename Tile::Ring ring(shared);

    SimtSums<Tile> sums;
    const int tiles = static_cast<int>((range.end - range.begin + BK - 1) / BK);
    tile::tile_loop(ring, copy_a, copy_b, tiles,
                    [&](const char* tile_a, const char* tile_b) { sums.multiply(tile_a, tile_b); });

    ring.drain();
    const tile::Staging<float, BM, BN> staging{shared};
    sums.put(staging);
    __syncthreads();
    write_tile<DType::f32, Tile::kThreads>(p, entry, staging, work, m0, n0);
}

}  // namespace nk::cuda

using namespace nk::cuda;

extern "C" __global__ void __launch_bounds__(Simt128x128::kThreads, Simt128x128::kBlocksPerSM)
    matmul_simt_f32_128x128(const __grid_constant__ MatmulParams p) {
    simt_matmul<Simt128x128>(p, work_of_block(p));
}
extern "C" __global__ void __launch_bounds__(Simt64x64::kThreads, Simt64x64::kBlocksPerSM)
    matmul_simt_f32_64x64(const __grid_constant__ MatmulParams p) {
    simt_matmul<Simt64x64>(p, work_of_block(p));
}
