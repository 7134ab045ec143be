// f32 on the ordinary cores, in full precision: tiles and the sums of one thread.
//
// A block's C tile [BM][BN] is shared by threads that own 8 x TN of it in registers. Operands are brought as [BK][BM]
// and [BK][BN] by cp.async, whatever their layout. In a warp 4 x 8 lanes cover 32 x 8 TN of the tile; a lane's rows
// and columns come in fours, so that one step of k is TN / 4 + 2 loads of 16 bytes without bank conflicts for 8 TN
// multiply-adds.
#pragma once

#include "../tile/element_copy.h"
#include "../tile/main_loop.h"
#include "../tile/staging.h"

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
class SimtSums {
    static constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BK, TM = Tile::TM, TN = Tile::TN;
    static constexpr int kPitchA = tile::kElementPitch<BM>, kPitchB = tile::kElementPitch<BN>;

  public:
    __device__ __forceinline__ SimtSums() {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        row_ = warp % (BM / Tile::kWarpM) * Tile::kWarpM + lane / 8 * 4;
        column_ = warp / (BM / Tile::kWarpM) * Tile::kWarpN + lane % 8 * 4;
    }
    __device__ __forceinline__ void multiply(const char* tile_a, const char* tile_b) {
        const float* const a = reinterpret_cast<const float*>(tile_a) + row_;
        const float* const b = reinterpret_cast<const float*>(tile_b) + column_;
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
                for (int n = 0; n < TN; ++n) sum_[m][n] = fmaf(x[m], y[n], sum_[m][n]);
        }
    }
    template <class Staging>
    __device__ __forceinline__ void put(const Staging& staging) const {
#pragma unroll
        for (int m = 0; m < TM; ++m)
#pragma unroll
            for (int n = 0; n < TN; n += 4) {
                const float four[4] = {sum_[m][n], sum_[m][n + 1], sum_[m][n + 2], sum_[m][n + 3]};
                staging.put(row_ + m / 4 * 16 + m % 4, column_ + n * 8, four);
            }
    }
    // The transpose; the staging's rows are columns of the tile.
    template <class Staging>
    __device__ __forceinline__ void put_transposed(const Staging& staging) const {
#pragma unroll
        for (int m = 0; m < TM; m += 4)
#pragma unroll
            for (int n = 0; n < TN; ++n) {
                const float four[4] = {sum_[m][n], sum_[m + 1][n], sum_[m + 2][n], sum_[m + 3][n]};
                staging.put(column_ + n / 4 * 32 + n % 4, row_ + m * 4, four);
            }
    }

  private:
    float sum_[TM][TN] = {};
    int row_, column_;
};

using Simt128x128 = SimtTile<128, 128, 8, 4, 2>;  // 66 KB, 256 threads of at most 128 registers
using Simt64x64 = SimtTile<64, 64, 4, 4, 3>;      // 34 KB, 128 threads of at most 168

}  // namespace nk::cuda
