// Copies tiles of an operand from global to shared memory, without waiting.
//
// An operand has an outer index (m of A, n of B) and k. Two shapes of tile serve all layouts:
//   k-major      [Outer][K]: k is contiguous in memory; k moves along the columns of the tile
//   outer-major  [K][Outer]: the outer index is contiguous; k moves along the rows
// Whatever lies outside the operand is filled with zeros, so ragged sizes need no other kernel.
#pragma once

#include <stdint.h>

#include "../ptx/address.h"
#include "../ptx/cp_async.h"

namespace nk::tile {

// Bytes taken at once. `element` stands for one element with any step; the others need neighbours in memory and
// addresses that are multiples of them.
enum Access : int { kElement = 0, kBytes4 = 4, kBytes8 = 8, kBytes16 = 16 };

// Steps of an operand in bytes: `outer` from one m or n to the next, `k` from one k to the next.
struct OperandSteps {
    int64_t outer, k;
};

// Each thread owns one column of 16-byte chunks and every kRowStep-th row of it.
template <bool KMajor, int Outer, int K, int ElementBytes, int Threads, class Swizzle>
class TileCopy {
    static constexpr int kRows = KMajor ? Outer : K;
    static constexpr int kColumns = KMajor ? K : Outer;
    static constexpr int kPerChunk = 16 / ElementBytes;
    static constexpr int kChunks = kColumns / kPerChunk;  // in a row
    static constexpr int kRowStep = Threads / kChunks;
    static constexpr int kPasses = (kRows + kRowStep - 1) / kRowStep;
    static_assert(Threads % kChunks == 0, "a thread stays in its column of chunks");
    static_assert(kRows % kRowStep == 0, "every thread copies as much as the next");
    static_assert(kRowStep % Swizzle::kPeriod == 0 || kPasses == 1, "one swizzled offset serves all passes");
    static_assert(Swizzle::kRowBytes == kColumns * ElementBytes, "the swizzle is that of this tile");

  public:
    // `origin` is the element [outer 0, k 0] of the tile's batch entry; the tile starts at `outer` and `k`.
    __device__ __forceinline__ TileCopy(const void* origin, OperandSteps steps, int64_t outer, int64_t outers,
                                        int64_t k, int access)
        : origin_(static_cast<const char*>(origin)), access_(access) {
        const int chunk = threadIdx.x % kChunks;
        row_ = threadIdx.x / kChunks;
        column_ = chunk * kPerChunk;
        offset_ = Swizzle::offset(row_, chunk);
        const int64_t outer_left = outers - outer;
        inside_ = static_cast<int>(outer_left < Outer ? outer_left : Outer);
        row_bytes_ = KMajor ? steps.outer : steps.k;
        column_bytes_ = KMajor ? steps.k : steps.outer;
        tile_bytes_ = K * steps.k;
        source_ = origin_ + outer * steps.outer + k * steps.k + row_ * row_bytes_ + column_ * column_bytes_;
    }

    // Whether this tile lies inside the operand along `outer` and is taken in whole chunks.
    __device__ __forceinline__ bool inside() const { return access_ == kBytes16 && inside_ == Outer; }

    // Starts copying a tile that lies inside the operand in every direction and moves on to the next one.
    __device__ __forceinline__ void issue_inside(char* tile) {
        const uint32_t target = ptx::shared_address(tile) + offset_;
        const char* from = source_;
#pragma unroll
        for (int pass = 0; pass < kPasses; ++pass, from += kRowStep * row_bytes_)
            ptx::cp_async_16(target + pass * kRowStep * Swizzle::kRowBytes, from);
        source_ += tile_bytes_;
    }

    // Starts copying the tile into `tile` and moves on to the next one; `k_left` elements of k remain (it may be <= 0).
    __device__ __forceinline__ void issue(char* tile, int64_t k_left) {
        const int left = static_cast<int>(k_left < K ? k_left : K);
        const int rows = KMajor ? inside_ : left;
        const int columns = (KMajor ? left : inside_) - column_;  // of this thread's chunk and beyond it
        const char* from = source_;
#pragma unroll 1
        for (int pass = 0; pass < kPasses; ++pass, from += kRowStep * row_bytes_) {
            char* const chunk = tile + offset_ + pass * kRowStep * Swizzle::kRowBytes;
            const int valid = row_ + pass * kRowStep < rows ? columns : 0;
            if (access_ == kBytes16)
                copy_pieces<16>(chunk, from, 16, valid);
            else if (access_ == kBytes8)
                copy_pieces<8>(chunk, from, 8, valid);
            else if (access_ == kBytes4)
                copy_pieces<4>(chunk, from, 4, valid);
            else if constexpr (ElementBytes == 4)
                copy_pieces<4>(chunk, from, column_bytes_, valid);
            else
                gather(chunk, from, valid);
        }
        source_ += tile_bytes_;
    }

  private:
    // A chunk in pieces of which each is wholly or partly valid; `step` bytes lie between their sources. Eight lanes
    // cover all banks with their chunks, so each eight of a warp begin with another piece.
    template <int Bytes>
    __device__ __forceinline__ void copy_pieces(char* chunk, const char* from, int64_t step, int valid) {
        const uint32_t target = ptx::shared_address(chunk);
#pragma unroll
        for (int turn = 0; turn < 16 / Bytes; ++turn) {
            const int i = (turn + threadIdx.x / 8) % (16 / Bytes);
            const int bytes = min(max(valid * ElementBytes - i * Bytes, 0), Bytes);
            const char* piece = bytes > 0 ? from + i * step : origin_;
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
            const uint32_t x = i < valid ? *reinterpret_cast<const uint16_t*>(from + i * column_bytes_) : 0;
            word[i / 2] |= x << (16 * (i % 2));
        }
        *reinterpret_cast<uint4*>(chunk) = make_uint4(word[0], word[1], word[2], word[3]);
    }

    const char* origin_;
    const char* source_;  // this thread's first chunk of the tile to come
    int64_t row_bytes_, column_bytes_, tile_bytes_;
    uint32_t offset_;
    int row_, column_, inside_, access_;
};

}  // namespace nk::tile
