// Swizzles: where the 16-byte chunk `chunk` of row `row` of a tile lies in shared memory, so that the accesses of a
// warp spread over all 32 banks (8 chunks). A swizzle permutes the chunks of a row and moves nothing between rows:
// offset(row, chunk) = row * RowBytes + 16 * (chunk ^ bits(row)). Because bits(row) repeats with kPeriod rows and xor
// needs no carry, offset(row + kPeriod, c) = offset(row, c) + kPeriod * RowBytes, and for c = x + y with disjoint
// bits offset(row, c) = offset(row, x) ^ (16 * y).
#pragma once

#include <stdint.h>

namespace nk::tile {

// For ldmatrix: the same chunk of 8 neighbouring rows falls into 8 different places modulo 8.
//   128 bytes and more: chunk ^ (row % 8)      64 bytes: chunk ^ (row / 2 % 4)      32 bytes: chunk ^ (row / 4 % 2)
template <int RowBytes>
struct MatrixSwizzle {
    static_assert(RowBytes >= 32 && (RowBytes & (RowBytes - 1)) == 0, "rows of 32, 64, 128, ... bytes");
    static constexpr int kRowBytes = RowBytes;
    static constexpr int kPeriod = 8;
    static constexpr int kWays = RowBytes >= 128 ? 8 : RowBytes / 16;
    static __host__ __device__ constexpr uint32_t bits(int row) { return (row / (8 / kWays)) & (kWays - 1); }
    static __host__ __device__ constexpr uint32_t offset(int row, uint32_t chunk) {
        return row * RowBytes + ((chunk ^ bits(row)) << 4);
    }
};

// For single 32-bit words: a warp takes words g = 0..7 (two chunks, the first of even number) of rows t = 0..3 and
// meets every bank once. Accumulators (word pairs of 4 rows) are staged through the same pattern.
template <int RowBytes>
struct WordSwizzle {
    static_assert(RowBytes >= 128 && RowBytes % 128 == 0, "8 chunks are permuted");
    static constexpr int kRowBytes = RowBytes;
    static constexpr int kPeriod = 4;
    static __host__ __device__ constexpr uint32_t bits(int row) { return 2 * (row & 3); }
    static __host__ __device__ constexpr uint32_t offset(int row, uint32_t chunk) {
        return row * RowBytes + ((chunk ^ bits(row)) << 4);
    }
};

// For pairs of doubles: eight lanes take 4 neighbouring chunks of two rows.
template <int RowBytes>
struct DoubleSwizzle {
    static_assert(RowBytes >= 128 && RowBytes % 128 == 0, "8 chunks are permuted");
    static constexpr int kRowBytes = RowBytes;
    static constexpr int kPeriod = 2;
    static __host__ __device__ constexpr uint32_t bits(int row) { return 4 * (row & 1); }
    static __host__ __device__ constexpr uint32_t offset(int row, uint32_t chunk) {
        return row * RowBytes + ((chunk ^ bits(row)) << 4);
    }
};

// For accumulators that are staged as the transpose: lanes take words g = 0..7 (two chunks, the first of even number)
// of rows 0, 2, 4 and 6, or of 1, 3, 5 and 7.
template <int RowBytes>
struct TransposeSwizzle {
    static_assert(RowBytes >= 128 && RowBytes % 128 == 0, "8 chunks are permuted");
    static constexpr int kRowBytes = RowBytes;
    static constexpr int kPeriod = 8;
    static __host__ __device__ constexpr uint32_t bits(int row) { return 2 * (row / 2 & 3); }
    static __host__ __device__ constexpr uint32_t offset(int row, uint32_t chunk) {
        return row * RowBytes + ((chunk ^ bits(row)) << 4);
    }
};

// For whole chunks of rows that lie four apart.
template <int RowBytes>
struct FourthSwizzle {
    static_assert(RowBytes >= 128 && RowBytes % 128 == 0, "8 chunks are permuted");
    static constexpr int kRowBytes = RowBytes;
    static constexpr int kPeriod = 32;
    static __host__ __device__ constexpr uint32_t bits(int row) { return row / 4 & 7; }
    static __host__ __device__ constexpr uint32_t offset(int row, uint32_t chunk) {
        return row * RowBytes + ((chunk ^ bits(row)) << 4);
    }
};

}  // namespace nk::tile
