// Full-precision f32 on the ordinary cores: every product and sum in f32 by fused multiply-add.
//
// A block's C tile [BM][BN] is shared by threads that own 8 x TN of it in registers. Operands are brought as [BK][BM]
// and [BK][BN] by cp.async, whatever their layout. In a warp 4 x 8 lanes cover 32 x 8 TN of the tile; a lane's rows
// and columns come in fours, so that one step of k is TN / 4 + 2 loads of 16 bytes without bank conflicts for 8 TN
// multiply-adds.
#include "../tile/element_copy.h"
#include "../tile/main_loop.h"
#include "operands.h"

namespace nk::cuda {

template <int BM_, int BN_, int TN_, int Stages_, int BlocksPerSM_>
struct SimtTile {
    static constexpr int BM = BM_, BN = BN_, BK = 16, TM = 8, TN = TN_, Stages = Stages_, kBlocksPerSM = BlocksPerSM_;
    static constexpr int kThreads = BM * BN / (TM * TN);
    static constexpr int kWarpM = 4 * TM, kWarpN = 8 * TN;  // a warp's part of the tile
    using CopyA = tile::ElementCopy<BM, BK, 4, kThreads>;
    using CopyB = tile::ElementCopy<BN, BK, 4, kThreads>;
    using Ring = tile::GroupRing<Stages, CopyA::kTileBytes + CopyB::kTileBytes>;
    static_assert(TN % 4 == 0 && BM % kWarpM == 0 && BN % kWarpN == 0, "whole warps");
    static_assert(Ring::kBytes >= BM * BN * 4, "the finished tile is staged in the ring's memory");
};

template <class Tile>
__device__ __forceinline__ void simt_matmul(const MatmulParams& p, const tile::Work& work) {
    constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BK, TM = Tile::TM, TN = Tile::TN;
    constexpr int kPitchA = tile::kElementPitch<BM>, kPitchB = tile::kElementPitch<BN>;

    extern __shared__ __align__(1024) char shared[];
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
    const BatchEntry<DType::f32> entry(p, p.batch_begin + work.batch);
    const tile::KRange range = tile::split_range(work.split, p.k, p.k_per_split);
    typename Tile::CopyA copy_a(entry.walk_a(p, m0, range));
    typename Tile::CopyB copy_b(entry.walk_b(p, n0, range));
    typename Tile::Ring ring(shared);

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = warp % (BM / Tile::kWarpM) * Tile::kWarpM + lane / 8 * 4;
    const int column = warp / (BM / Tile::kWarpM) * Tile::kWarpN + lane % 8 * 4;
    float sum[TM][TN] = {};
    const int tiles = static_cast<int>((range.end - range.begin + BK - 1) / BK);
    tile::tile_loop(ring, copy_a, copy_b, tiles, [&](const char* tile_a, const char* tile_b) {
        const float* const a = reinterpret_cast<const float*>(tile_a) + row;
        const float* const b = reinterpret_cast<const float*>(tile_b) + column;
#pragma unroll
        for (int k = 0; k < BK; ++k) {
            float x[TM], y[TN];
#pragma unroll
            for (int m = 0; m < TM; m += 4)
                *reinterpret_cast<float4*>(x + m) = *reinterpret_cast<const float4*>(a + k * kPitchA + m * 4);
#pragma unroll
            for (int n = 0; n < TN; n += 4)
                *reinterpret_cast<float4*>(y + n) = *reinterpret_cast<const float4*>(b + k * kPitchB + n * 8);
#pragma unroll
            for (int m = 0; m < TM; ++m)
#pragma unroll
                for (int n = 0; n < TN; ++n) sum[m][n] = fmaf(x[m], y[n], sum[m][n]);
        }
    });

    ring.drain();
    const tile::Staging<float, BM, BN> staging{shared};
#pragma unroll
    for (int m = 0; m < TM; ++m)
#pragma unroll
        for (int n = 0; n < TN; n += 4) {
            const float four[4] = {sum[m][n], sum[m][n + 1], sum[m][n + 2], sum[m][n + 3]};
            staging.put(row + m / 4 * 16 + m % 4, column + n * 8, four);
        }
    __syncthreads();
    write_tile<DType::f32, Tile::kThreads>(p, entry, staging, work, m0, n0);
}

using Simt128x128 = SimtTile<128, 128, 8, 4, 2>;  // 66 KB, 256 threads of at most 128 registers
using Simt64x64 = SimtTile<64, 64, 4, 4, 3>;      // 34 KB, 128 threads of at most 168

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
