// Copies tiles of an operand from global to shared memory, without waiting.
//
// An operand has an outer index (m of A, n of B) and k. Two shapes of tile serve all layouts:
//   k-major      [Outer][K]: k is contiguous in memory; k moves along the columns of the tile
//   outer-major  [K][Outer]: the outer index is contiguous; k moves along the rows
// Whatever lies outside the operand is filled with zeros, so ragged sizes need no other kernel. Where the tiles lie is
// the walk's business (walk.h).
#pragma once

#include <stdint.h>

#include <type_traits>

#include "../ptx/address.h"
#include "../ptx/cp_async.h"
#include "walk.h"

namespace nk::tile {

// How the threads of a block share a tile: each owns one column of 16-byte chunks and every kRowStep-th row of it.
template <bool KMajor, int Outer, int K, int ElementBytes, int Threads>
struct CopyShape {
    static constexpr int kRows = KMajor ? Outer : K;
    static constexpr int kColumns = KMajor ? K : Outer;
    static constexpr int kPerChunk = 16 / ElementBytes;
    static constexpr int kChunks = kColumns / kPerChunk;  // in a row
    static constexpr int kRowStep = Threads / kChunks;
    static constexpr int kPasses = (kRows + kRowStep - 1) / kRowStep;
    static_assert(Threads % kChunks == 0, "a thread stays in its column of chunks");
    static_assert(kRows % kRowStep == 0, "every thread copies as much as the next");

    template <Along Direction>
    using Linear = LinearWalk<Direction, KMajor, Outer, K, ElementBytes, kRowStep>;
};

template <class Shape, class Swizzle, class Walk>
class TileCopy {
    static constexpr int kPasses = Shape::kPasses, kRowStep = Shape::kRowStep, kPerChunk = Shape::kPerChunk;
    static constexpr int kElementBytes = 16 / kPerChunk;
    static_assert(kRowStep % Swizzle::kPeriod == 0 || kPasses == 1, "one swizzled offset serves all passes");
    static_assert(Swizzle::kRowBytes == Shape::kChunks * 16, "the swizzle is that of this tile");

  public:
    static constexpr int kTileBytes = Shape::kRows * Swizzle::kRowBytes;
    static constexpr bool kHoles = std::is_base_of_v<Holes, Walk>;

    __device__ __forceinline__ explicit TileCopy(const typename Walk::Params& params)
        : walk_(params, row(), chunk() * kPerChunk), offset_(Swizzle::offset(row(), chunk())) {}

    // Tiles from the first one on that exist entirely.
    __device__ __forceinline__ int whole() const { return walk_.whole(); }

    // Starts copying the next tile, which exists entirely.
    __device__ __forceinline__ void issue_whole(char* tile) {
        const uint32_t target = ptx::shared_address(tile) + offset_;
        auto cursor = walk_.begin();
        const char* from[kPasses];  // first all of them: what a walk looks up can't be moved before a copy
#pragma unroll
        for (int pass = 0; pass < kPasses; ++pass, walk_.down(cursor)) from[pass] = walk_.address(cursor);
        cursor = walk_.begin();
#pragma unroll
        for (int pass = 0; pass < kPasses; ++pass, walk_.down(cursor)) {
            const uint32_t to = target + pass * kRowStep * Swizzle::kRowBytes;
            if constexpr (kHoles)
                ptx::cp_async_16_if(to, from[pass], walk_.exists(cursor));
            else
                ptx::cp_async_16(to, from[pass]);
        }
        walk_.advance();
    }

    // Starts copying the next tile, number `index`, of which some may not exist, or nothing.
    __device__ __forceinline__ void issue(char* tile, int index) {
        if constexpr (kHoles) {
            if (index < walk_.tiles()) return issue_whole(tile);
            const uint32_t target = ptx::shared_address(tile) + offset_;
#pragma unroll 1
            for (int pass = 0; pass < kPasses; ++pass)
                ptx::cp_async_16_if(target + pass * kRowStep * Swizzle::kRowBytes, nullptr, false);
        } else {
            issue_pieces(tile, index);
        }
    }

    // Starts copying tile `index` of `count`, of which the first `whole` exist entirely; behind them there is nothing.
    __device__ __forceinline__ void issue_next(char* tile, int index, int whole, int count) {
        if (index < whole)
            issue_whole(tile);
        else if (index < count)
            issue(tile, index);
    }

  private:
    __device__ __forceinline__ void issue_pieces(char* tile, int index) {
        const auto limits = walk_.limits(index);
        auto cursor = walk_.begin();
#pragma unroll Walk::kUnrolled ? kPasses : 1
        for (int pass = 0; pass < kPasses; ++pass, walk_.down(cursor)) {
            char* const chunk = tile + offset_ + pass * kRowStep * Swizzle::kRowBytes;
            const char* const from = walk_.address(cursor);
            const int valid = walk_.valid(cursor, limits);
            if (walk_.access() == kBytes16)
                copy_pieces<16>(chunk, from, 16, valid);
            else if (walk_.access() == kBytes8)
                copy_pieces<8>(chunk, from, 8, valid);
            else if (walk_.access() == kBytes4)
                copy_pieces<4>(chunk, from, 4, valid);
            else if constexpr (kElementBytes == 4)
                copy_pieces<4>(chunk, from, walk_.element_step(), valid);
            else
                gather(chunk, from, valid);
        }
        walk_.advance();
    }

    static __device__ __forceinline__ int row() { return threadIdx.x / Shape::kChunks; }
    static __device__ __forceinline__ int chunk() { return threadIdx.x % Shape::kChunks; }

    // A chunk in pieces of which each is wholly or partly valid; `step` bytes lie between their sources. Eight lanes
    // cover all banks with their chunks, so each eight of a warp begin with another piece.
    template <int Bytes>
    __device__ __forceinline__ void copy_pieces(char* chunk, const char* from, int64_t step, int valid) {
        const uint32_t target = ptx::shared_address(chunk);
#pragma unroll
        for (int turn = 0; turn < 16 / Bytes; ++turn) {
            const int i = (turn + threadIdx.x / 8) % (16 / Bytes);
            const int bytes = min(max(valid * kElementBytes - i * Bytes, 0), Bytes);
            const char* piece = bytes > 0 ? from + i * step : walk_.anywhere();
            if constexpr (Bytes == 16)
                ptx::cp_async_16(target, piece, bytes);
            else
                ptx::cp_async<Bytes>(target + i * Bytes, piece, bytes);
        }
    }

    // 16-bit elements one by one, through registers; they are visible after the next barrier as all tiles are.
    __device__ __forceinline__ void gather(char* chunk, const char* from, int valid) {
        uint32_t word[4] = {};
#pragma unroll
        for (int i = 0; i < kPerChunk; ++i) {
            const uint32_t x =
                i < valid ? *reinterpret_cast<const uint16_t*>(from + i * walk_.element_step()) : uint32_t{0};
            word[i / 2] |= x << (16 * (i % 2));
        }
        *reinterpret_cast<uint4*>(chunk) = make_uint4(word[0], word[1], word[2], word[3]);
    }

    Walk walk_;
    uint32_t offset_;  // of this thread's first chunk in a tile
};

}  // namespace nk::tile
