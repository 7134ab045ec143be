// Walks: where one tile of an operand after another lies, and how much of it exists. TileCopy (copy.h) and ElementCopy
// move what a walk points at, so an operand that is found by other arithmetic needs a walk of its own, not a copy.
//
// TileCopy makes one for each thread, `Walk(params, row, column)`: the thread's first row of the tile and the first
// element of its chunk there. Its other rows lie RowStep apart, and a Cursor goes down them:
//   begin()              a cursor at the first row of the next tile
//   down(cursor)         RowStep rows further
//   address(cursor)      where the chunk there begins
//   limits(tile)         what `valid` has to know of tile number `tile`
//   valid(cursor, limits)
//                        how many elements of the chunk exist (<= 0: none, more than a chunk: all)
// and of the operand as a whole:
//   whole()              tiles from the first one on that exist entirely and may be moved by 16 bytes
//   access()             bytes that may be taken at once, see Access
//   element_step()       bytes from one element of a chunk to the next, for single elements
//   anywhere()           an address that exists, for chunks of which nothing does
//   advance()            on to the next tile
//   kUnrolled            whether cursors have to be constants, for walks that keep something for each row
// A walk that may miss whole chunks anywhere, and moves all others by 16 bytes, is a Holes: it has exists(cursor) and
// tiles(), how many there are, in place of limits, valid, access, element_step and anywhere.
#pragma once

#include <stdint.h>

namespace nk::tile {

// Bytes taken at once. `element` stands for one element with any step; the others need neighbours in memory and
// addresses that are multiples of them.
enum Access : int { kElement = 0, kBytes4 = 4, kBytes8 = 8, kBytes16 = 16 };

// Steps of an operand in bytes: `outer` from one m or n to the next, `k` from one k to the next.
struct OperandSteps {
    int64_t outer, k;
};

struct Holes {};

// The direction in which the tiles follow one another: k in a product, the outer index for the keys of attention.
enum class Along { k, outer };

// A matrix: element (outer, k) lies at origin + outer * steps.outer + k * steps.k. The first tile begins at
// (outer, k), and elements exist below outer_end and k_end.
struct MatrixWalk {
    const void* origin;
    OperandSteps steps;
    int64_t outer, outer_end, k, k_end;
    int access;

    // Elements of tile number `tile` that exist in each direction, at most the tile's.
    struct Limits {
        int outer, k;
    };
    template <Along Direction, int Outer, int K>
    __device__ __forceinline__ Limits limits(int tile) const {
        const int64_t outers = outer_end - outer - (Direction == Along::outer ? int64_t{tile} * Outer : 0);
        const int64_t ks = k_end - k - (Direction == Along::k ? int64_t{tile} * K : 0);
        return {static_cast<int>(outers < Outer ? outers : Outer), static_cast<int>(ks < K ? ks : K)};
    }
};

template <Along Direction, bool KMajor, int Outer, int K, int ElementBytes, int RowStep>
class LinearWalk {
  public:
    using Params = MatrixWalk;
    static constexpr bool kUnrolled = false;

    __device__ __forceinline__ LinearWalk(const Params& p, int row, int column) : p_(p), row_(row), column_(column) {
        const int64_t row_bytes = KMajor ? p.steps.outer : p.steps.k;
        pass_bytes_ = RowStep * row_bytes;
        tile_bytes_ = Direction == Along::k ? K * p.steps.k : Outer * p.steps.outer;
        source_ = static_cast<const char*>(p.origin) + p.outer * p.steps.outer + p.k * p.steps.k + row * row_bytes +
                  column * element_step();
    }

    __device__ __forceinline__ int whole() const {
        if (p_.access != kBytes16) return 0;
        const int64_t outers = p_.outer_end - p_.outer, ks = p_.k_end - p_.k;
        if (Direction == Along::k) return outers >= Outer ? static_cast<int>(ks / K) : 0;
        return ks >= K ? static_cast<int>(outers / Outer) : 0;
    }
    struct Cursor {
        const char* at;
        int row;
    };
    __device__ __forceinline__ Cursor begin() const { return {source_, row_}; }
    __device__ __forceinline__ void down(Cursor& c) const { c.at += pass_bytes_, c.row += RowStep; }
    __device__ __forceinline__ const char* address(Cursor c) const { return c.at; }
    __device__ __forceinline__ MatrixWalk::Limits limits(int tile) const {
        return p_.template limits<Direction, Outer, K>(tile);
    }
    __device__ __forceinline__ int valid(Cursor c, MatrixWalk::Limits l) const {
        return c.row < (KMajor ? l.outer : l.k) ? (KMajor ? l.k : l.outer) - column_ : 0;
    }
    __device__ __forceinline__ int access() const { return p_.access; }
    __device__ __forceinline__ int64_t element_step() const { return KMajor ? p_.steps.k : p_.steps.outer; }
    __device__ __forceinline__ const char* anywhere() const { return static_cast<const char*>(p_.origin); }
    __device__ __forceinline__ void advance() { source_ += tile_bytes_; }

  private:
    Params p_;
    const char* source_;  // this thread's first chunk of the tile to come
    int64_t pass_bytes_, tile_bytes_;
    int row_, column_;
};

}  // namespace nk::tile
