// The products of a convolution on the tensor cores: matmul's tiles, rings and loops (product/mma.h), with the walks of
// windows in place of one operand's, and the places of pixels in place of rows.
#pragma once

#include "../product/mma.h"
#include "results.h"
#include "window.h"

namespace nk::cuda {

__device__ __forceinline__ tile::Work work_of_block(const WindowParams& p) {
    return tile::work_of_block(p.tiles_m, p.tiles_n, p.group);
}
template <int BK>
__device__ __forceinline__ int tiles_of(tile::KRange k) {
    return static_cast<int>((k.end - k.begin + BK - 1) / BK);
}

// Results [pixels, channels] of a group: pixels of windows [pixels, (tap, channel)] times a matrix [channels, k].
template <DType T, class Tile, bool Mapped>
__device__ __forceinline__ void mma_windows(const WindowParams& p) {
    constexpr int kBytes = size_of(T), BM = Tile::BM, BN = Tile::BN, BK = Tile::BKBytes / kBytes;
    using MapA = tile::FragmentMap<true, true, BM, BK, kBytes, Tile::WM>;
    using ShapeA = tile::CopyShape<true, BM, BK, kBytes, Tile::kThreads>;
    using CopyA =
        tile::TileCopy<ShapeA, typename MapA::Swizzle, WindowWalk<Mapped, BM, BK, kBytes, 16, ShapeA::kRowStep>>;
    using B = MmaOperand<false, true, BN, BK, kBytes, Tile::WN, Tile::kThreads>;
    using Warp = tile::WarpTile<T, Tile::WM, Tile::WN, Tile::BKBytes, MapA, typename B::Map>;

    extern __shared__ __align__(1024) char shared[];
    const tile::Work work = work_of_block(p);
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
    const tile::KRange k = tile::split_range(work.split, p.k, p.k_per_split);
    CopyA copy_a({p, static_cast<const char*>(p.source) + work.batch * p.source_group, m0, k.begin, tiles_of<BK>(k)});
    typename B::Copy copy_b({static_cast<const char*>(p.matrix) + work.batch * p.matrix_group,
                             {p.matrix_row, kBytes},
                             n0,
                             p.channels,
                             k.begin,
                             k.end,
                             tile::kBytes16});
    typename Tile::Ring ring(shared);
    const int warp = threadIdx.x / 32;
    Warp sums(warp % Tile::kWarpsM, warp / Tile::kWarpsM, threadIdx.x % 32);
    tile::main_loop(sums, ring, copy_a, copy_b, tiles_of<BK>(k));

    ring.drain();
    if (p.order == kPixelsDown) {
        const tile::Staging<float, BM, BN> staging{shared};
        sums.put(staging);
        __syncthreads();
        write_results<T, Tile::kThreads>(p, PixelResults<T, false>(p, work.batch), staging, work, m0, n0);
    } else {
        const tile::Transposed<tile::Staging<float, BN, BM, tile::TransposeSwizzle<BM * 4>>> staging{{shared}};
        sums.put(staging);
        __syncthreads();
        write_results<T, Tile::kThreads>(p, PixelResults<T, true>(p, work.batch), staging, work, n0, m0);
    }
}

// A weight's gradient [o, (tap, c)] of a group: a matrix [pixels, o] times windows [pixels, (tap, c)], k the pixels.
template <DType T, class Tile>
__device__ __forceinline__ void mma_weights(const WindowParams& p) {
    constexpr int kBytes = size_of(T), BM = Tile::BM, BN = Tile::BN, BK = Tile::BKBytes / kBytes;
    using A = MmaOperand<true, false, BM, BK, kBytes, Tile::WM, Tile::kThreads>;
    using MapB = tile::FragmentMap<false, false, BN, BK, kBytes, Tile::WN>;
    using ShapeB = tile::CopyShape<false, BN, BK, kBytes, Tile::kThreads>;
    using CopyB = tile::TileCopy<ShapeB, typename MapB::Swizzle, PixelWalk<BN, BK, kBytes, 16, ShapeB::kRowStep>>;
    using Warp = tile::WarpTile<T, Tile::WM, Tile::WN, Tile::BKBytes, typename A::Map, MapB>;

    extern __shared__ __align__(1024) char shared[];
    const tile::Work work = work_of_block(p);
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN;
    const tile::KRange k = tile::split_range(work.split, p.k, p.k_per_split);
    typename A::Copy copy_a({static_cast<const char*>(p.matrix) + work.batch * p.matrix_group,
                             {kBytes, p.matrix_row},
                             m0,
                             p.m,
                             k.begin,
                             k.end,
                             tile::kBytes16});
    CopyB copy_b({p, static_cast<const char*>(p.source) + work.batch * p.source_group, n0, k.begin, tiles_of<BK>(k)});
    typename Tile::Ring ring(shared);
    const int warp = threadIdx.x / 32;
    Warp sums(warp % Tile::kWarpsM, warp / Tile::kWarpsM, threadIdx.x % 32);
    tile::main_loop(sums, ring, copy_a, copy_b, tiles_of<BK>(k));

    ring.drain();
    const tile::Staging<float, BM, BN> staging{shared};
    sums.put(staging);
    __syncthreads();
    write_results<T, Tile::kThreads>(p, WeightResults<T>(p, work.batch), staging, work, m0, n0);
}

}  // namespace nk::cuda

// Their names say element and tile.
#define NK_CONVOLUTION_KERNEL(kind, product, T, Tile, ...)                           \
    extern "C" __global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSM) \
        convolution_##kind(const __grid_constant__ nk::cuda::WindowParams p) {       \
        nk::cuda::product<nk::DType::T, Tile __VA_OPT__(, ) __VA_ARGS__>(p);         \
    }
#define NK_CONVOLUTION_KERNELS(element, T, Tile, size)                         \
    NK_CONVOLUTION_KERNEL(mma_##element##_##size, mma_windows, T, Tile, false) \
    NK_CONVOLUTION_KERNEL(weight_##element##_##size, mma_weights, T, Tile)
#define NK_CONVOLUTION_MAPPED(element, T, Tile, size) \
    NK_CONVOLUTION_KERNEL(mapped_##element##_##size, mma_windows, T, Tile, true)
