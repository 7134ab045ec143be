// A warp's part of a tile of results, by mma.sync: fragments of A and B from shared memory or registers, and the sums.
//
// The free functions are for kernels that join them in their own way, as attention does: S = Q K', then P from the
// sums of S as an operand of P V. WarpTile is the whole for main_loop.h.
#pragma once

#include <stdint.h>

#include "../../dtype.h"
#include "../ptx/cvt.h"
#include "../ptx/mma.h"
#include "fragment.h"

namespace nk::tile {

// Fragments of one step of k (32 bytes): one register block [4] for 16 rows of A or 16 columns of B. Elements of f32
// are rounded to tf32 on the way.
template <DType T, bool IsA, class Map, int Count>
__device__ __forceinline__ void fetch(uint32_t (&r)[Count][4], const char* tile, const Map& map, int step) {
#pragma unroll
    for (int i = 0; i < Count; ++i) load_fragment<IsA>(r[i], tile, map, i * 16, step);
    if constexpr (T == DType::f32) {
#pragma unroll
        for (int i = 0; i < Count * 4; ++i) r[i / 4][i % 4] = ptx::to_tf32(r[i / 4][i % 4]);
    }
}

template <int Ms, int Ns>
__device__ __forceinline__ void clear(float (&sum)[Ms][Ns][4]) {
#pragma unroll
    for (int i = 0; i < Ms * Ns * 4; ++i) sum[i / (Ns * 4)][i / 4 % Ns][i % 4] = 0;
}

// sum += A B for one step of k.
template <DType T, int Ms, int Ns>
__device__ __forceinline__ void multiply(float (&sum)[Ms][Ns][4], const uint32_t (&a)[Ms][4],
                                         const uint32_t (&b)[Ns / 2][4]) {
#pragma unroll
    for (int m = 0; m < Ms; ++m)
#pragma unroll
        for (int n = 0; n < Ns; ++n) {
            const uint32_t b0 = b[n / 2][n % 2 * 2], b1 = b[n / 2][n % 2 * 2 + 1];
            if constexpr (T == DType::f32)
                ptx::mma_m16n8k8_tf32(sum[m][n], a[m], b0, b1);
            else
                ptx::mma_m16n8k16<T>(sum[m][n], a[m], b0, b1);
        }
}

// Sums of one product as the A operand of the next, without leaving the registers: their columns become k, and a lane
// already holds what a fragment of 16-bit elements wants of it (fragment.h): columns 2t, 2t + 1 of two neighbouring
// blocks of 8 are k 0..7 and 8..15 of a step.
template <DType T, int Ms, int Ns>
__device__ __forceinline__ void sums_as_operand(const float (&sum)[Ms][Ns][4], int step, uint32_t (&a)[Ms][4]) {
    static_assert(T == DType::bf16 || T == DType::f16, "a tf32 fragment holds other columns than the sums do");
    const auto pair = [](float lo, float hi) {
        return T == DType::bf16 ? ptx::pack_bf16(lo, hi) : ptx::pack_f16(lo, hi);
    };
#pragma unroll
    for (int m = 0; m < Ms; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float (&c)[4] = sum[m][2 * step + half];
            a[m][2 * half] = pair(c[0], c[1]);
            a[m][2 * half + 1] = pair(c[2], c[3]);
        }
}

// WM x WN of a block's tile, with the fragments of two steps of k: those at work and those that are being loaded.
template <DType T, int WM, int WN, int KBytes, class MapA, class MapB>
struct WarpTile {
    static constexpr int kSteps = KBytes / 32;
    static constexpr int kMs = WM / 16, kNs = WN / 8;
    static_assert(WM % 16 == 0 && WN % 16 == 0, "whole fragments");

    float sum[kMs][kNs][4] = {};

    // Its place among the warps of the block.
    __device__ __forceinline__ WarpTile(int warp_m, int warp_n, int lane)
        : row_(warp_m * WM + lane / 4),
          column_(warp_n * WN + lane % 4 * 2),
          map_a_(warp_m, lane),
          map_b_(warp_n, lane) {}

    __device__ __forceinline__ void fetch(int buffer, const char* tile_a, const char* tile_b, int step) {
        tile::fetch<T, true>(a_[buffer], tile_a, map_a_, step);
        tile::fetch<T, false>(b_[buffer], tile_b, map_b_, step);
    }
    __device__ __forceinline__ void multiply(int buffer) { tile::multiply<T>(sum, a_[buffer], b_[buffer]); }

    // Puts the sums down in the block's tile.
    template <class Staging>
    __device__ __forceinline__ void put(const Staging& staging) const {
#pragma unroll
        for (int m = 0; m < kMs; ++m)
#pragma unroll
            for (int n = 0; n < kNs; ++n) {
                staging.put_pair(row_ + m * 16, column_ + n * 8, sum[m][n][0], sum[m][n][1]);
                staging.put_pair(row_ + m * 16 + 8, column_ + n * 8, sum[m][n][2], sum[m][n][3]);
            }
    }

  private:
    int row_, column_;  // of its first sum
    MapA map_a_;
    MapB map_b_;
    uint32_t a_[2][kMs][4], b_[2][kNs / 2][4];
};

}  // namespace nk::tile
