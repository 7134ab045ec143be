// Matmul's tile in other hands: a few blocks that take all tiles in turn, a ring of mbarriers, and warps that only fill
// it while others compute.
#include "kernels/cuda/matmul/mma.h"

using namespace nk;
using namespace nk::cuda;

namespace {

using Tile = MmaTile<64, 64, 128, 32, 32, 3, 1>;
constexpr DType T = DType::bf16;
constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BKBytes / 2;

template <int Threads>
struct Operands {
    using A = MmaOperand<true, true, BM, BK, 2, Tile::WM, Threads>;
    using B = MmaOperand<false, true, BN, BK, 2, Tile::WN, Threads>;
    using Warp = tile::WarpTile<T, Tile::WM, Tile::WN, Tile::BKBytes, typename A::Map, typename B::Map>;
};

// out = A B' of contiguous matrices, batch after batch; with splits > 1 their partial sums.
__device__ __forceinline__ MatmulParams product(uint16_t* out, uint16_t* a, uint16_t* b, float* sums, int64_t m,
                                                int64_t n, int64_t k, int64_t batches, int64_t splits) {
    MatmulParams p;
    p.m = m, p.n = n, p.k = k, p.batches = batches, p.batch_size[kBatchDims - 1] = batches;
    p.out.data = out, p.out.row = n, p.out.column = 1, p.out.batch[kBatchDims - 1] = m * n;
    p.a.data = a, p.a.row = k, p.a.column = 1, p.a.batch[kBatchDims - 1] = m * k;
    p.b.data = b, p.b.row = 1, p.b.column = k, p.b.batch[kBatchDims - 1] = n * k;
    p.workspace = sums, p.workspace_pitch = (n + 3) / 4 * 4;
    p.splits = static_cast<int>(splits);
    p.k_per_split = splits == 1 ? k : ((k + splits - 1) / splits + BK - 1) / BK * BK;
    p.tiles_m = static_cast<int>((m + BM - 1) / BM), p.tiles_n = static_cast<int>((n + BN - 1) / BN), p.group = 2;
    p.a_access = p.b_access = k % 8 == 0 ? tile::kBytes16 : k % 2 == 0 ? tile::kBytes4 : tile::kElement;
    return p;
}

__device__ __forceinline__ tile::Work work_number(const MatmulParams& p, int64_t index) {
    return tile::work_of(index, p.tiles_m, p.tiles_n, p.group, p.splits);
}
__device__ __forceinline__ int64_t all_work(const MatmulParams& p) {
    return int64_t{p.tiles_m} * p.tiles_n * p.splits * p.batches;
}

}  // namespace

// The blocks of a small grid take all tiles in turn.
extern "C" __global__ void __launch_bounds__(Tile::kThreads)
    persistent(uint16_t* out, uint16_t* a, uint16_t* b, float* sums, int64_t m, int64_t n, int64_t k, int64_t batches,
               int64_t splits) {
    const MatmulParams p = product(out, a, b, sums, m, n, k, batches, splits);
    for (int64_t i = blockIdx.x; i < all_work(p); i += gridDim.x) {
        mma_matmul<T, Tile, true, true>(p, work_number(p, i));
        __syncthreads();  // the tile has left the memory that the next one's operands come to
    }
}

// The same on mbarriers, whose phases go on from tile to tile.
extern "C" __global__ void __launch_bounds__(Tile::kThreads)
    persistent_mbarriers(uint16_t* out, uint16_t* a, uint16_t* b, float* sums, int64_t m, int64_t n, int64_t k,
                         int64_t batches, int64_t splits) {
    const MatmulParams p = product(out, a, b, sums, m, n, k, batches, splits);
    using Ring = tile::MbarrierRing<Tile::Stages, (BM + BN) * Tile::BKBytes>;
    using Arrival = tile::MbarrierArrival<Tile::Stages>;
    using Of = Operands<Tile::kThreads>;
    extern __shared__ __align__(1024) char shared[];
    Ring ring(shared, Arrival(shared + Ring::kBytes, Tile::kThreads, Tile::kThreads));
    for (int64_t i = blockIdx.x; i < all_work(p); i += gridDim.x) {
        const tile::Work work = work_number(p, i);
        const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
        const BatchEntry<T> entry(p, p.batch_begin + work.batch);
        const tile::KRange range = tile::split_range(work.split, p.k, p.k_per_split);
        Of::A::Copy copy_a(entry.walk_a(p, m0, range));
        Of::B::Copy copy_b(entry.walk_b(p, n0, range));
        const int warp = threadIdx.x / 32;
        Of::Warp sums(warp % Tile::kWarpsM, warp / Tile::kWarpsM, threadIdx.x % 32);
        tile::main_loop(sums, ring, copy_a, copy_b, static_cast<int>((range.end - range.begin + BK - 1) / BK));
        ring.drain();
        const tile::Staging<float, BM, BN> staging{shared};
        sums.put(staging);
        __syncthreads();
        write_tile<T, Tile::kThreads>(p, entry, staging, work, m0, n0);
        __syncthreads();
    }
}

// Two warps fill, the others compute; nothing but the barriers of the ring is between them.
extern "C" __global__ void __launch_bounds__(64 + Tile::kThreads)
    specialized(uint16_t* out, uint16_t* a, uint16_t* b, float* sums, int64_t m, int64_t n, int64_t k, int64_t batches,
                int64_t splits) {
    const MatmulParams p = product(out, a, b, sums, m, n, k, batches, splits);
    constexpr int kFilling = 64;
    using Ring = tile::MbarrierRing<Tile::Stages, (BM + BN) * Tile::BKBytes>;
    using Arrival = tile::MbarrierArrival<Tile::Stages>;
    using Of = Operands<kFilling>;
    extern __shared__ __align__(1024) char shared[];
    Ring ring(shared, Arrival(shared + Ring::kBytes, kFilling, Tile::kThreads));
    const tile::Work work = work_number(p, blockIdx.x);
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
    const BatchEntry<T> entry(p, p.batch_begin + work.batch);
    const tile::KRange range = tile::split_range(work.split, p.k, p.k_per_split);
    const int tiles = static_cast<int>((range.end - range.begin + BK - 1) / BK);
    const tile::Staging<float, BM, BN> staging{shared};
    if (threadIdx.x < kFilling) {
        Of::A::Copy copy_a(entry.walk_a(p, m0, range));
        Of::B::Copy copy_b(entry.walk_b(p, n0, range));
        tile::Feed<Ring, Of::A::Copy, Of::B::Copy> feed(ring, copy_a, copy_b);
        for (int i = 0; i < tiles; ++i) feed.next();
        __syncthreads();
    } else {
        const int warp = threadIdx.x / 32 - kFilling / 32;
        Of::Warp sums(warp % Tile::kWarpsM, warp / Tile::kWarpsM, threadIdx.x % 32);
        tile::warp_loop(sums, ring, Of::A::Copy::kTileBytes, tiles, [] {});
        ring.flush();
        __syncthreads();
        sums.put(staging);
    }
    __syncthreads();
    write_tile<T, kFilling + Tile::kThreads>(p, entry, staging, work, m0, n0);
}
