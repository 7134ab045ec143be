// Operand fragments of mma.sync, from swizzled tiles in shared memory.
//
// In every fragment lane l = 4 g + t (g = 0..7, t = 0..3) holds 32-bit registers; "2t" stands for elements 2t and
// 2t + 1 of 16 bits, "t" for one element of 32 bits. One step of k is 32 bytes: 16 elements of 16 bits or 8 of tf32.
//
//   A, 16 rows (m) x 32 bytes of k:          B, 32 bytes of k x 8 columns (n):
//               k 0..7     k 8..15   (16-bit)            k 0..7        k 8..15   (16-bit)
//               k 0..3     k 4..7    (tf32)              k 0..3        k 4..7    (tf32)
//     m = g     a0: 2t|t   a2                  n = g     b0: 2t|t      b1
//     m = g+8   a1         a3
//
//   Accumulators, 16 x 8 of f32: c0, c1 are row g, columns 2t and 2t + 1; c2, c3 the same columns of row g + 8.
//
// Four 8-row, 16-byte matrices fill one A fragment or two neighbouring B fragments, so each is one ldmatrix.x4. From
// an outer-major tile of 16-bit elements `.trans` turns the matrices; 32-bit elements are picked up word by word.
#pragma once

#include <stdint.h>

#include "../ptx/address.h"
#include "../ptx/cvt.h"
#include "../ptx/ldmatrix.h"
#include "swizzle.h"

namespace nk::tile {

// The swizzle of an operand tile [Outer][K] (k-major) or [K][Outer].
template <bool KMajor, int Outer, int K, int ElementBytes>
struct OperandSwizzle {
    using type = MatrixSwizzle<K * ElementBytes>;
};
template <int Outer, int K>
struct OperandSwizzle<false, Outer, K, 2> {
    using type = MatrixSwizzle<Outer * 2>;
};
template <int Outer, int K>
struct OperandSwizzle<false, Outer, K, 4> {
    using type = WordSwizzle<Outer * 4>;
};

// Byte offsets of what a lane reads: `at(outer, step)` for 16 rows of A or columns of B, from `outer` (a multiple of
// 16, relative to the warp's part of the tile) in step `step` of k. IsA tells in which order the four matrices come.
template <bool IsA, bool KMajor, int Outer, int K, int ElementBytes, int WarpOuter>
struct FragmentMap {
    using Swizzle = typename OperandSwizzle<KMajor, Outer, K, ElementBytes>::type;
    static constexpr bool kWords = !KMajor && ElementBytes == 4;
    static constexpr bool kTranspose = !KMajor && ElementBytes == 2;
    static constexpr int kOuterBytes = WarpOuter * ElementBytes;
    static_assert(KMajor || kOuterBytes % 64 == 0, "the warp's part of a row begins at a multiple of its chunks");

    uint32_t base;

    __host__ __device__ __forceinline__ FragmentMap(int warp, int lane) {
        const int outer = warp * WarpOuter;
        if constexpr (kWords) {
            const int g = lane / 4, t = lane % 4;
            base = Swizzle::offset(t, outer / 4 + g / 4) + (g % 4) * 4;
        } else {
            const int matrix = lane / 8, row = lane % 8;
            // A counts its matrices down the rows first, B along k first.
            const int second_outer = IsA ? matrix & 1 : matrix >> 1;
            const int second_k = IsA ? matrix >> 1 : matrix & 1;
            base = KMajor ? Swizzle::offset(outer + second_outer * 8 + row, second_k)
                          : Swizzle::offset(second_k * 8 + row, outer / 8 + second_outer);
        }
    }

    // 16 outer elements from one ldmatrix.x4; for words see `word`.
    __host__ __device__ __forceinline__ uint32_t at(int outer, int step) const {
        if constexpr (KMajor) return (base ^ (step * 32)) + outer * Swizzle::kRowBytes;
        return (base ^ (outer * 2)) + step * 16 * Swizzle::kRowBytes;
    }

    // The word of outer element `outer` + g (a multiple of 8) and k = 8 step + 4 half + t.
    __host__ __device__ __forceinline__ uint32_t word(int outer, int step, int half) const {
        return (base ^ (outer * 4)) + (step * 8 + half * 4) * Swizzle::kRowBytes;
    }
};

// Loads one fragment of A (16 rows), or two of B (columns 0..7 in r[0], r[1], and 8..15 in r[2], r[3]).
template <bool IsA, class Map>
__device__ __forceinline__ void load_fragment(uint32_t (&r)[4], const char* tile, const Map& map, int outer, int step) {
    if constexpr (Map::kWords) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int second_outer = IsA ? i & 1 : i >> 1;
            const int second_k = IsA ? i >> 1 : i & 1;
            r[i] = *reinterpret_cast<const uint32_t*>(tile + map.word(outer + second_outer * 8, step, second_k));
        }
    } else if constexpr (Map::kTranspose) {
        ptx::ldmatrix_x4_trans(r, ptx::shared_address(tile) + map.at(outer, step));
    } else {
        ptx::ldmatrix_x4(r, ptx::shared_address(tile) + map.at(outer, step));
    }
}

}  // namespace nk::tile
