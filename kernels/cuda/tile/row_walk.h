// A walk (walk.h) over rows that lie anywhere: the block keeps where they begin in shared memory, for the tile to come
// and the one after it.
#pragma once

#include "walk.h"

namespace nk::tile {

// Whoever makes the copy fills `begins` of tile i, at [i % 2], before the barrier that precedes its copy.
template <int Rows, int Columns, int RowStep>
class RowWalk {
  public:
    struct Params {
        const char* origin;
        const int64_t (*begins)[Rows];  // bytes from origin
        int64_t column_step;            // bytes
        int rows, columns;              // that exist, from the first tile on
        int access;
    };
    static constexpr bool kUnrolled = false;
    struct Limits {
        int rows;
    };
    using Cursor = int;  // row of the tile

    __device__ __forceinline__ RowWalk(const Params& p, int row, int column)
        : p_(p), row_(row), column_(column), begins_(p.begins[0]) {
        p_.origin += column * p.column_step;
    }

    __device__ __forceinline__ int whole() const {
        return p_.access == kBytes16 && p_.columns == Columns ? p_.rows / Rows : 0;
    }
    __device__ __forceinline__ Cursor begin() const { return row_; }
    __device__ __forceinline__ void down(Cursor& c) const { c += RowStep; }
    __device__ __forceinline__ const char* address(Cursor c) const { return p_.origin + begins_[c]; }
    __device__ __forceinline__ Limits limits(int tile) const { return {p_.rows - tile * Rows}; }
    __device__ __forceinline__ int valid(Cursor c, Limits l) const { return c < l.rows ? p_.columns - column_ : 0; }
    __device__ __forceinline__ int access() const { return p_.access; }
    __device__ __forceinline__ int64_t element_step() const { return p_.column_step; }
    __device__ __forceinline__ const char* anywhere() const { return p_.origin - column_ * p_.column_step; }
    __device__ __forceinline__ void advance() { begins_ = begins_ == p_.begins[0] ? p_.begins[1] : p_.begins[0]; }

  private:
    Params p_;
    int row_, column_;
    const int64_t* begins_;
};

}  // namespace nk::tile
