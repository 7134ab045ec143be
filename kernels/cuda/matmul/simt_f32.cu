// Full-precision f32 on the ordinary cores: every product and sum in f32 by fused multiply-add.
//
// A block's C tile [BM][BN] is shared by threads that own 8 x TN of it in registers. Operands are brought as [BK][BM]
// and [BK][BN] by cp.async, whatever their layout. In a warp 4 x 8 lanes cover 32 x 8 TN of the tile; a lane's rows
// and columns come in fours, so that one step of k is TN / 4 + 2 loads of 16 bytes without bank conflicts for 8 TN
// multiply-adds.
#include "../tile/element_copy.h"
#include "../tile/pipeline.h"
#include "epilogue.h"

namespace nk::cuda {

template <int BM_, int BN_, int TN_, int Stages_, int BlocksPerSM_>
struct SimtTile {
    static constexpr int BM = BM_, BN = BN_, BK = 16, TM = 8, TN = TN_, Stages = Stages_, kBlocksPerSM = BlocksPerSM_;
    static constexpr int kThreads = BM * BN / (TM * TN);
    static constexpr int kWarpM = 4 * TM, kWarpN = 8 * TN;  // a warp's part of the tile
    using CopyA = tile::ElementCopy<BM, BK, 4, kThreads>;
    using CopyB = tile::ElementCopy<BN, BK, 4, kThreads>;
    static constexpr int kStageBytes = CopyA::kTileBytes + CopyB::kTileBytes;
    static_assert(TN % 4 == 0 && BM % kWarpM == 0 && BN % kWarpN == 0, "whole warps");
    static_assert(Stages * kStageBytes >= BM * BN * 4, "the finished tile is staged in the ring's memory");
};

template <class Tile>
__device__ __forceinline__ void simt_matmul(const MatmulParams& p) {
    constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BK, TM = Tile::TM, TN = Tile::TN;
    constexpr int kPitchA = tile::kElementPitch<BM>, kPitchB = tile::kElementPitch<BN>;

    extern __shared__ __align__(1024) char shared[];
    const tile::TileIndex at = tile::grouped_tile(blockIdx.x, p.tiles_m, p.tiles_n, p.group);
    const int64_t m0 = int64_t{at.m} * BM, n0 = int64_t{at.n} * BN;
    const BatchEntry<DType::f32> entry(p, p.batch_begin + blockIdx.z);
    const tile::KRange range = tile::split_range(blockIdx.y, p.k, p.k_per_split);

    typename Tile::CopyA copy_a(entry.a, {p.a.row * 4, p.a.column * 4}, m0, p.m, range.begin, p.a_access);
    typename Tile::CopyB copy_b(entry.b, {p.b.column * 4, p.b.row * 4}, n0, p.n, range.begin, p.b_access);
    tile::Ring<Tile::Stages, Tile::kStageBytes> ring(shared);
    int64_t k_to_load = range.end - range.begin;
    const int tiles = static_cast<int>((k_to_load + BK - 1) / BK);
    auto load = [&] {
        copy_a.issue(ring.writing(), k_to_load);
        copy_b.issue(ring.writing() + Tile::CopyA::kTileBytes, k_to_load);
        ring.commit();
        k_to_load -= BK;
    };
#pragma unroll 1
    for (int stage = 0; stage < ring.kAhead; ++stage) load();

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = warp % (BM / Tile::kWarpM) * Tile::kWarpM + lane / 8 * 4;
    const int column = warp / (BM / Tile::kWarpM) * Tile::kWarpN + lane % 8 * 4;
    float sum[TM][TN] = {};
#pragma unroll 1
    for (int i = 0; i < tiles; ++i) {
        ring.arrive();
        load();  // into the stage of the tile before this one, which every warp has finished
        const float* a = reinterpret_cast<const float*>(ring.reading()) + row;
        const float* b = reinterpret_cast<const float*>(ring.reading() + Tile::CopyA::kTileBytes) + column;
        ring.advance();
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
    }

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
    write_tile<DType::f32, Tile::kThreads>(p, entry, staging, m0, n0);
}

using Simt128x128 = SimtTile<128, 128, 8, 4, 2>;  // 66 KB, 256 threads of at most 128 registers
using Simt64x64 = SimtTile<64, 64, 4, 4, 3>;      // 34 KB, 128 threads of at most 168

}  // namespace nk::cuda

using namespace nk::cuda;

extern "C" __global__ void __launch_bounds__(Simt128x128::kThreads, Simt128x128::kBlocksPerSM)
    matmul_simt_f32_128x128(const __grid_constant__ MatmulParams p) {
    simt_matmul<Simt128x128>(p);
}
extern "C" __global__ void __launch_bounds__(Simt64x64::kThreads, Simt64x64::kBlocksPerSM)
    matmul_simt_f32_64x64(const __grid_constant__ MatmulParams p) {
    simt_matmul<Simt64x64>(p);
}
