// The products of a convolution for f32 in full precision and for f64: matmul's tiles and sums (product/simt.h, f64.h),
// whose operands are brought element by element and turned on the way (tile/element_copy.h).
#pragma once

#include <utility>

#include "../tile/element_copy.h"
#include "../tile/main_loop.h"
#include "results.h"
#include "window.h"

namespace nk::cuda {

__device__ __forceinline__ tile::Work element_work(const WindowParams& p) {
    return tile::work_of_block(p.tiles_m, p.tiles_n, p.group);
}

// [Outer pixels][K of (tap, channel)] to [K][Pitch]: lanes along k, one sector each eighth or fourth of them.
template <bool Mapped, int Outer, int K, int ElementBytes, int Threads>
class WindowElementCopy {
    static constexpr int kPitch = tile::kElementPitch<Outer>, kLanesK = 32 / ElementBytes;
    static constexpr int kOuterStep = Threads / kLanesK, kColumns = K / kLanesK;
    using Walk = WindowWalk<Mapped, Outer, K, ElementBytes, ElementBytes, kOuterStep>;

  public:
    static constexpr int kTileBytes = K * kPitch * ElementBytes;

    __device__ __forceinline__ explicit WindowElementCopy(const typename Walk::Params& params)
        : WindowElementCopy(params, std::make_integer_sequence<int, kColumns>()) {}
    __device__ __forceinline__ int whole() const { return 0; }
    __device__ __forceinline__ void issue_whole(char*) {}
    __device__ __forceinline__ void issue(char* tile, int index) {
        const int k = threadIdx.x % kLanesK, outer = threadIdx.x / kLanesK;
        const uint32_t target = ptx::shared_address(tile) + (k * kPitch + outer) * ElementBytes;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            auto cursor = walks_[c].begin();
#pragma unroll
            for (int o = 0; o < Outer; o += kOuterStep, walks_[c].down(cursor))
                ptx::cp_async<ElementBytes>(target + (c * kLanesK * kPitch + o) * ElementBytes,
                                            walks_[c].address(cursor),
                                            index < walks_[c].tiles() && walks_[c].exists(cursor) ? ElementBytes : 0);
            if (index < walks_[c].tiles()) walks_[c].advance();
        }
    }

  private:
    template <int... C>
    __device__ __forceinline__ WindowElementCopy(const typename Walk::Params& params, std::integer_sequence<int, C...>)
        : walks_{Walk(params, threadIdx.x / kLanesK, threadIdx.x % kLanesK + C * kLanesK)...} {}

    Walk walks_[kColumns];
};

// [K pixels][Outer of (tap, channel)], lanes along the outer index.
template <int Outer, int K, int ElementBytes, int Threads>
class PixelElementCopy {
    static constexpr int kPitch = tile::kElementPitch<Outer>, kRowStep = Threads / Outer;
    using Walk = PixelWalk<Outer, K, ElementBytes, ElementBytes, kRowStep>;

  public:
    static constexpr int kTileBytes = K * kPitch * ElementBytes;

    __device__ __forceinline__ explicit PixelElementCopy(const typename Walk::Params& params)
        : walk_(params, threadIdx.x / Outer, threadIdx.x % Outer) {}
    __device__ __forceinline__ int whole() const { return 0; }
    __device__ __forceinline__ void issue_whole(char*) {}
    __device__ __forceinline__ void issue(char* tile, int index) {
        const uint32_t target =
            ptx::shared_address(tile) + (threadIdx.x / Outer * kPitch + threadIdx.x % Outer) * ElementBytes;
        auto cursor = walk_.begin();
#pragma unroll
        for (int k = 0; k < K; k += kRowStep, walk_.down(cursor))
            ptx::cp_async<ElementBytes>(target + k * kPitch * ElementBytes, walk_.address(cursor),
                                        index < walk_.tiles() && walk_.exists(cursor) ? ElementBytes : 0);
        if (index < walk_.tiles()) walk_.advance();
    }

  private:
    Walk walk_;
};

// Sums: of the tile, with multiply and put; turned(sums, staging) puts them down as the transpose.
template <DType T, class Tile, class Sums, bool Mapped, class TurnedStaging, class Turned>
__device__ __forceinline__ void element_windows(const WindowParams& p, const Turned& turned) {
    constexpr int kBytes = size_of(T), BM = Tile::BM, BN = Tile::BN, BK = Tile::BK;
    using Number = compute_t<T>;
    extern __shared__ __align__(1024) char shared[];
    const tile::Work work = element_work(p);
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
    const tile::KRange k = tile::split_range(work.split, p.k, p.k_per_split);
    const int tiles = static_cast<int>((k.end - k.begin + BK - 1) / BK);
    WindowElementCopy<Mapped, BM, BK, kBytes, Tile::kThreads> copy_a(
        {p, static_cast<const char*>(p.source) + work.batch * p.source_group, m0, k.begin, tiles});
    tile::ElementCopy<BN, BK, kBytes, Tile::kThreads> copy_b(
        {static_cast<const char*>(p.matrix) + work.batch * p.matrix_group,
         {p.matrix_row, kBytes},
         n0,
         p.channels,
         k.begin,
         k.end,
         tile::kElement});
    typename Tile::Ring ring(shared);
    Sums sums;
    tile::tile_loop(ring, copy_a, copy_b, tiles,
                    [&](const char* tile_a, const char* tile_b) { sums.multiply(tile_a, tile_b); });
    ring.drain();
    if (p.order == kPixelsDown) {
        const tile::Staging<Number, BM, BN> staging{shared};
        sums.put(staging);
        __syncthreads();
        write_results<T, Tile::kThreads>(p, PixelResults<T, false>(p, work.batch), staging, work, m0, n0);
    } else {
        const TurnedStaging staging{shared};
        turned(sums, staging);
        __syncthreads();
        write_results<T, Tile::kThreads>(p, PixelResults<T, true>(p, work.batch), staging, work, n0, m0);
    }
}

template <DType T, class Tile, class Sums>
__device__ __forceinline__ void element_weights(const WindowParams& p) {
    constexpr int kBytes = size_of(T), BM = Tile::BM, BN = Tile::BN, BK = Tile::BK;
    extern __shared__ __align__(1024) char shared[];
    const tile::Work work = element_work(p);
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
    const tile::KRange k = tile::split_range(work.split, p.k, p.k_per_split);
    const int tiles = static_cast<int>((k.end - k.begin + BK - 1) / BK);
    tile::ElementCopy<BM, BK, kBytes, Tile::kThreads> copy_a(
        {static_cast<const char*>(p.matrix) + work.batch * p.matrix_group,
         {kBytes, p.matrix_row},
         m0,
         p.m,
         k.begin,
         k.end,
         p.matrix_access});
    PixelElementCopy<BN, BK, kBytes, Tile::kThreads> copy_b(
        {p, static_cast<const char*>(p.source) + work.batch * p.source_group, n0, k.begin, tiles});
    typename Tile::Ring ring(shared);
    Sums sums;
    tile::tile_loop(ring, copy_a, copy_b, tiles,
                    [&](const char* tile_a, const char* tile_b) { sums.multiply(tile_a, tile_b); });
    ring.drain();
    const tile::Staging<compute_t<T>, BM, BN> staging{shared};
    sums.put(staging);
    __syncthreads();
    write_results<T, Tile::kThreads>(p, WeightResults<T>(p, work.batch), staging, work, m0, n0);
}

}  // namespace nk::cuda

#define NK_ELEMENT_KERNELS(element, T, Tile, Sums, size)                                \
    extern "C" __global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSM)    \
        convolution_mma_##element##_##size(const __grid_constant__ WindowParams p) {    \
        windows<Tile, false>(p);                                                        \
    }                                                                                   \
    extern "C" __global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSM)    \
        convolution_weight_##element##_##size(const __grid_constant__ WindowParams p) { \
        element_weights<nk::DType::T, Tile, Sums>(p);                                   \
    }
#define NK_ELEMENT_MAPPED(element, Tile, size)                                          \
    extern "C" __global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSM)    \
        convolution_mapped_##element##_##size(const __grid_constant__ WindowParams p) { \
        windows<Tile, true>(p);                                                         \
    }
