// The loops over k that products share: tiles of A and B come through a ring of stages while the tiles before them are
// multiplied. Where the tiles lie is their copies' business, how a tile is multiplied the caller's.
#pragma once

#include "ring.h"

namespace nk::tile {

// Fills a ring, A's tile first in a stage, B's behind it. CopyA and CopyB: whole, issue_whole, issue (copy.h).
template <class Ring, class CopyA, class CopyB>
class Feed {
  public:
    // Starts the copies of the first kAhead tiles.
    __device__ __forceinline__ Feed(Ring& ring, CopyA& a, CopyB& b)
        : ring_(ring), a_(a), b_(b), whole_(min(a.whole(), b.whole())) {
#pragma unroll 1
        for (int stage = 0; stage < Ring::kAhead; ++stage) next();
    }

    // Starts the copies of the next tile; beyond the last one they bring zeros. Tiles that need no check of bounds come
    // first: all whole ones of a block inside the matrices.
    __device__ __forceinline__ void next() {
        ring_.acquire();
        char* const tile_a = ring_.writing();
        char* const tile_b = tile_a + CopyA::kTileBytes;
        if (started_ < whole_) {
            if constexpr (has_holes()) {  // what its walk does between tiles comes after all copies
                b_.issue_whole(tile_b);
                a_.issue_whole(tile_a);
            } else {
                a_.issue_whole(tile_a);
                b_.issue_whole(tile_b);
            }
        } else {
            a_.issue(tile_a, started_);
            b_.issue(tile_b, started_);
        }
        ring_.commit();
        ++started_;
    }

  private:
    static constexpr __device__ bool has_holes() {
        if constexpr (requires { CopyA::kHoles; }) return CopyA::kHoles;
        return false;
    }

    Ring& ring_;
    CopyA& a_;
    CopyB& b_;
    int whole_, started_ = 0;
};

// Tile after tile: multiply(tile of A, tile of B).
template <class Ring, class CopyA, class CopyB, class Multiply>
__device__ __forceinline__ void tile_loop(Ring& ring, CopyA& a, CopyB& b, int tiles, Multiply&& multiply) {
    Feed<Ring, CopyA, CopyB> feed(ring, a, b);
#pragma unroll 1
    for (int left = tiles; left > 0; --left) {
        ring.wait();
        feed.next();  // into the stage of the tile before this one, which every warp has finished
        multiply(ring.reading(), ring.reading() + CopyA::kTileBytes);
        ring.release();
    }
}

// The same with a warp's fragments one step ahead of its multiplications, across tiles as well. Warp: kSteps of a tile,
// fetch(buffer, tile of A, tile of B, step), multiply(buffer), see warp_tile.h. refill() is called once a tile, where
// the stage of the tile before is free; it is empty where other warps fill the ring. They fill kAhead stages more than
// there are tiles.
template <class Warp, class Ring, class Refill>
__device__ __forceinline__ void warp_loop(Warp& warp, Ring& ring, int a_bytes, int tiles, Refill&& refill) {
    static_assert(Warp::kSteps >= 2, "the ring moves on in the last step of a tile and is refilled in the first");
    const auto fetch = [&](int buffer, int step) {
        warp.fetch(buffer, ring.reading(), ring.reading() + a_bytes, step);
    };
    ring.wait();
    fetch(0, 0);
#pragma unroll 1
    for (int left = tiles; left > 0; --left) {
#pragma unroll
        for (int step = 0; step < Warp::kSteps; ++step) {
            if (step == Warp::kSteps - 1) {  // the last fragments of this tile are in registers: on to the next tile
                ring.release();
                ring.wait();
            }
            fetch((step + 1) % 2, (step + 1) % Warp::kSteps);
            if (step == 0) refill();
            warp.multiply(step % 2);
        }
    }
}

// All warps fill the ring and compute.
template <class Warp, class Ring, class CopyA, class CopyB>
__device__ __forceinline__ void main_loop(Warp& warp, Ring& ring, CopyA& a, CopyB& b, int tiles) {
    Feed<Ring, CopyA, CopyB> feed(ring, a, b);
    warp_loop(warp, ring, CopyA::kTileBytes, tiles, [&] { feed.next(); });
}

}  // namespace nk::tile
