// What tensor-core products share (matmul/mma.h is the one to read): the sizes of a tile, and an operand that is a
// matrix.
#pragma once

#include "../tile/copy.h"
#include "../tile/main_loop.h"
#include "../tile/warp_tile.h"

namespace nk::cuda {

template <int BM_, int BN_, int BKBytes_, int WM_, int WN_, int Stages_, int BlocksPerSM_>
struct MmaTile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, Stages = Stages_, BKBytes = BKBytes_;
    static constexpr int kWarpsM = BM / WM, kWarpsN = BN / WN;
    static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
    static constexpr int kBlocksPerSM = BlocksPerSM_;  // what the register budget is cut for
    using Ring = tile::GroupRing<Stages, (BM + BN) * BKBytes>;
    static_assert(Ring::kBytes >= BM * BN * 4, "the finished tile is staged in the ring's memory");
};

// One operand of a tile: how it is copied into shared memory and read from there.
template <bool IsA, bool KMajor, int Outer, int K, int ElementBytes, int WarpOuter, int Threads>
struct MmaOperand {
    using Map = tile::FragmentMap<IsA, KMajor, Outer, K, ElementBytes, WarpOuter>;
    using Shape = tile::CopyShape<KMajor, Outer, K, ElementBytes, Threads>;
    using Copy = tile::TileCopy<Shape, typename Map::Swizzle, typename Shape::template Linear<tile::Along::k>>;
};

}  // namespace nk::cuda
