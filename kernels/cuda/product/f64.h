// f64 on the tensor cores: the tile and the sums of a warp.
//
// A block of 4 warps computes a 64 x 64 tile, each warp 32 x 32. Operands are brought as [16][64] by cp.async whatever
// their layout; a fragment of 8 x 4 doubles is one load per lane: lane 4 g + t takes A (row g, k t) or B (k t, column
// g) and holds the sums of row g, columns 2t and 2t + 1.
#pragma once

#include "../ptx/mma.h"
#include "../tile/element_copy.h"
#include "../tile/main_loop.h"
#include "../tile/staging.h"

namespace nk::cuda {

struct F64Tile {
    static constexpr int BM = 64, BN = 64, BK = 16, WM = 32, WN = 32, Stages = 3;
    static constexpr int kThreads = 128, kBlocksPerSM = 3;
    using Copy = tile::ElementCopy<64, BK, 8, kThreads>;
    using Ring = tile::GroupRing<Stages, 2 * Copy::kTileBytes>;  // 17 KB a stage, 51 KB in all
    static_assert(Ring::kBytes >= BM * BN * 8, "the finished tile is staged in the ring's memory");
};

class F64Sums {
    static constexpr int kMs = F64Tile::WM / 8, kNs = F64Tile::WN / 8;
    static constexpr int kPitch = tile::kElementPitch<64>;

  public:
    __device__ __forceinline__ F64Sums() {
        const int warp = threadIdx.x / 32;
        row_ = warp % 2 * F64Tile::WM + threadIdx.x % 32 / 4;
        column_ = warp / 2 * F64Tile::WN;
    }
    __device__ __forceinline__ void multiply(const char* tile_a, const char* tile_b) {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        const double* const a = reinterpret_cast<const double*>(tile_a) + t * kPitch + row_;
        const double* const b = reinterpret_cast<const double*>(tile_b) + t * kPitch + column_ + g;
#pragma unroll
        for (int k = 0; k < F64Tile::BK; k += 4) {
            double x[kMs], y[kNs];
#pragma unroll
            for (int m = 0; m < kMs; ++m) x[m] = a[k * kPitch + m * 8];
#pragma unroll
            for (int n = 0; n < kNs; ++n) y[n] = b[k * kPitch + n * 8];
#pragma unroll
            for (int m = 0; m < kMs; ++m)
#pragma unroll
                for (int n = 0; n < kNs; ++n) ptx::mma_m8n8k4_f64(sum_[m][n], x[m], y[n]);
        }
    }
    template <class Staging>
    __device__ __forceinline__ void put(const Staging& staging) const {
#pragma unroll
        for (int m = 0; m < kMs; ++m)
#pragma unroll
            for (int n = 0; n < kNs; ++n)
                staging.put_pair(row_ + m * 8, column_ + n * 8 + threadIdx.x % 4 * 2, sum_[m][n][0], sum_[m][n][1]);
    }

  private:
    double sum_[kMs][kNs][2] = {};
    int row_, column_;
};

}  // namespace nk::cuda
