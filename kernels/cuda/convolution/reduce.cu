// What a product by tiles needs beside it: the sums of parts of k, in the order of the parts; the table of windows of a
// weight's gradient; images and weights with their channels side by side.
#include "pixel.h"
#include "results.h"
#include "window.h"

namespace nk::cuda {

inline constexpr int kWindowReduceThreads = 256;

template <DType T, class Results>
__device__ __forceinline__ void reduce_parts(const WindowParams& p, const Results& results) {
    using Number = compute_t<T>;
    constexpr int N = kPiece<T>;
    constexpr DType kPartial = sizeof(Number) == 8 ? DType::f64 : DType::f32;
    const int64_t per_row = (p.n + N - 1) / N;
    const int64_t index = int64_t{blockIdx.x} * kWindowReduceThreads + threadIdx.x;
    if (index >= p.m * per_row) return;
    const int64_t m = index / per_row, n = index % per_row * N;
    Number sum[N] = {};
#pragma unroll 4
    for (int split = 0; split < p.splits; ++split) {
        Number part[N];
        load_piece<kPartial>(workspace_row<Number>(p, split, blockIdx.z, m) + n, part);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += part[i];
    }
    finish_piece<T>(p, results, m, n, sum);
}

template <DType T>
__device__ __forceinline__ void reduce_windows(const WindowParams& p) {
    if (p.order == kWeights)
        reduce_parts<T>(p, WeightResults<T>(p, blockIdx.z));
    else if (p.order == kPixelsDown)
        reduce_parts<T>(p, PixelResults<T, false>(p, blockIdx.z));
    else
        reduce_parts<T>(p, PixelResults<T, true>(p, blockIdx.z));
}

// A pixel's gradient is the sum of those of the places where it is read, and of the parts of k of each.
template <DType T>
__device__ __forceinline__ void fold(const FoldParams& p) {
    using Number = compute_t<T>;
    constexpr int N = kPiece<T>;
    constexpr DType kPartial = sizeof(Number) == 8 ? DType::f64 : DType::f32;
    const int64_t pieces = (p.channels + N - 1) / N, index = int64_t{blockIdx.x} * kWindowReduceThreads + threadIdx.x;
    const int64_t n = index % pieces * N, group = index / pieces % p.groups;
    const Pixel to = pixel_of(index / pieces / p.groups, p.in);
    if (to.image >= p.images) return;
    const Places places[kSpatial] = {{to.at[0], p.in[0], p.pad[0], p.padded[0], p.mode},
                                     {to.at[1], p.in[1], p.pad[1], p.padded[1], p.mode},
                                     {to.at[2], p.in[2], p.pad[2], p.padded[2], p.mode}};
    const int64_t counts[kSpatial] = {places[0].count(), places[1].count(), places[2].count()};
    Number sum[N] = {};
#pragma unroll 1
    for (int64_t i = 0; i < counts[0] * counts[1] * counts[2]; ++i) {
        const Pixel which = pixel_of(i, counts);
        int64_t row = to.image;
        bool seen = true;
#pragma unroll
        for (int d = 0; d < kSpatial; ++d) {
            const int64_t place = places[d].place(which.at[d]) + p.pad[d];
            seen = seen && place < p.padded[d];
            row = row * p.padded[d] + place;
        }
        if (!seen) continue;  // behind the last window
        for (int split = 0; split < p.splits; ++split) {
            Number part[N];
            load_piece<kPartial>(workspace_row<Number>(p, split, group, row) + n, part);
#pragma unroll
            for (int c = 0; c < N; ++c) sum[c] += part[c];
        }
    }
    const int64_t left = p.channels - n;
    const PlainResults<T> results{p.image, p.none, p.none, to, p.image.channel, 0, 0};
    finish<T, false>(p, results, 0, group * p.channels + n, static_cast<int>(left < N ? left : N), sum);
}

// A row of the table for each pixel; with a padding mode there is a table for each tap.
__device__ __forceinline__ void window_table(const WindowParams& p, WindowRow* table) {
    const int64_t m = int64_t{blockIdx.x} * kWindowReduceThreads + threadIdx.x;
    if (m >= p.table_rows) return;
    const Tap tap(p, blockIdx.y);
    const WindowRow row = p.mode == kZeros ? window_row<false>(p, m, tap) : window_row<true>(p, m, tap);
    reinterpret_cast<uint2*>(table)[blockIdx.y * p.table_rows + m] =
        make_uint2(static_cast<uint32_t>(row.offset), row.outside);
}

template <int Dims>
__device__ __forceinline__ int64_t offset_among(int64_t index, const int64_t (&size)[Dims],
                                                const int64_t (&step)[Dims]) {
    int64_t offset = 0;
#pragma unroll
    for (int d = Dims - 1; d > 0; --d) {
        offset += index % size[d] * step[d];
        index /= size[d];
    }
    return offset + index * step[0];
}

// A block takes 32 pixels by 32 channels of an image, through shared memory where the two sides run across.
template <class Bits>
__device__ __forceinline__ void pack(const PackParams& p) {
    constexpr int kPitch = kPackTile + (sizeof(Bits) == 2 ? 2 : 1);
    __shared__ Bits tile[kPackTile][kPitch];
    const int64_t columns = p.groups * p.padded, across = (columns + kPackTile - 1) / kPackTile;
    const int64_t down = (p.pixels + kPackTile - 1) / kPackTile;
    const int64_t index = blockIdx.x, column0 = index % across * kPackTile;
    const int64_t pixel0 = index / across % down * kPackTile, block = index / across / down;
    const int64_t outer = block / p.inners, inner = block % p.inners;
    const Bits* const from =
        static_cast<const Bits*>(p.from) + outer * p.from_outer + offset_among(inner, p.inner, p.from_inner);
    const bool along_channels = p.from_channel == 1;
#pragma unroll 4
    for (int i = threadIdx.x; i < kPackTile * kPackTile; i += kPackThreads) {
        const int row = along_channels ? i / kPackTile : i % kPackTile;
        const int at = along_channels ? i % kPackTile : i / kPackTile;
        const int64_t pixel = pixel0 + row, column = column0 + at, c = column % p.padded;
        Bits x = 0;
        if (pixel < p.pixels && column < columns && c < p.channels)
            x = from[offset_among(pixel, p.pixel, p.from_pixel) +
                     (column / p.padded * p.channels + c) * p.from_channel];
        tile[row][at] = x;
    }
    __syncthreads();
    Bits* const to = static_cast<Bits*>(p.to) + outer * p.to_outer + inner * p.to_inner;
#pragma unroll 4
    for (int i = threadIdx.x; i < kPackTile * kPackTile; i += kPackThreads) {
        const int row = i / kPackTile, at = i % kPackTile;
        if (pixel0 + row < p.pixels && column0 + at < columns)
            to[(pixel0 + row) * p.to_pixel + column0 + at] = tile[row][at];
    }
}

}  // namespace nk::cuda

#define NK_FOLD(element)                                                             \
    extern "C" __global__ void __launch_bounds__(nk::cuda::kWindowReduceThreads)     \
        convolution_fold_##element(const __grid_constant__ nk::cuda::FoldParams p) { \
        nk::cuda::fold<nk::DType::element>(p);                                       \
    }
NK_FOLD(f32)
NK_FOLD(f64)
NK_FOLD(f16)
NK_FOLD(bf16)

#define NK_REDUCE_WINDOWS(element)                                                       \
    extern "C" __global__ void __launch_bounds__(nk::cuda::kWindowReduceThreads)         \
        convolution_reduce_##element(const __grid_constant__ nk::cuda::WindowParams p) { \
        nk::cuda::reduce_windows<nk::DType::element>(p);                                 \
    }
NK_REDUCE_WINDOWS(f32)
NK_REDUCE_WINDOWS(f64)
NK_REDUCE_WINDOWS(f16)
NK_REDUCE_WINDOWS(bf16)

extern "C" __global__ void __launch_bounds__(nk::cuda::kWindowReduceThreads)
    convolution_table(const __grid_constant__ nk::cuda::WindowParams p) {
    nk::cuda::window_table(p, const_cast<nk::cuda::WindowRow*>(p.table));
}

#define NK_PACK(bits)                                                             \
    extern "C" __global__ void __launch_bounds__(nk::cuda::kPackThreads)          \
        convolution_pack_##bits(const __grid_constant__ nk::cuda::PackParams p) { \
        nk::cuda::pack<uint##bits##_t>(p);                                        \
    }
NK_PACK(16)
NK_PACK(32)
NK_PACK(64)
