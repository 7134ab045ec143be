// The output tile in shared memory on its way from accumulators, which are scattered over the lanes, to whole rows.
#pragma once

#include <stdint.h>

#include "swizzle.h"

namespace nk::tile {

template <class Number, int RowBytes>
struct StagingSwizzle {
    using type = WordSwizzle<RowBytes>;
};
template <int RowBytes>
struct StagingSwizzle<double, RowBytes> {
    using type = DoubleSwizzle<RowBytes>;
};

// [Rows][Columns] of f32 or f64 in swizzled chunks of 16 bytes.
template <class Number, int Rows, int Columns,
          class Chunks = typename StagingSwizzle<Number, Columns* static_cast<int>(sizeof(Number))>::type>
struct Staging {
    static constexpr int kRows = Rows, kColumns = Columns;
    static constexpr int kLanes = 16 / static_cast<int>(sizeof(Number));  // numbers in a chunk
    static constexpr int kBytes = Rows * Columns * static_cast<int>(sizeof(Number));
    using Swizzle = Chunks;

    char* memory;

    __device__ __forceinline__ Number* at(int row, int column) const {
        return reinterpret_cast<Number*>(memory + Swizzle::offset(row, column / kLanes)) + column % kLanes;
    }
    // Two neighbours, the first in an even column.
    __device__ __forceinline__ void put_pair(int row, int column, float x, float y) const {
        *reinterpret_cast<float2*>(at(row, column)) = make_float2(x, y);
    }
    __device__ __forceinline__ void put_pair(int row, int column, double x, double y) const {
        *reinterpret_cast<double2*>(at(row, column)) = make_double2(x, y);
    }
    __device__ __forceinline__ void put(int row, int column, Number x) const { *at(row, column) = x; }
    // A whole chunk.
    __device__ __forceinline__ void put(int row, int column, const float (&v)[4]) const {
        *reinterpret_cast<float4*>(at(row, column)) = make_float4(v[0], v[1], v[2], v[3]);
    }
    __device__ __forceinline__ void get(int row, int column, float (&v)[4]) const {
        const float4 x = *reinterpret_cast<const float4*>(at(row, column));
        v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
    }
    __device__ __forceinline__ void get(int row, int column, double (&v)[2]) const {
        const double2 x = *reinterpret_cast<const double2*>(at(row, column));
        v[0] = x.x, v[1] = x.y;
    }
};

// Takes a tile as its transpose, which the lanes put down column by column.
template <class Of>
struct Transposed : Of {
    template <class Number>
    __device__ __forceinline__ void put_pair(int row, int column, Number x, Number y) const {
        Of::put(column, row, x);
        Of::put(column + 1, row, y);
    }
};

}  // namespace nk::tile
