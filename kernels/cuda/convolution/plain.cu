// The plain kernels of a convolution: any strides, sizes, groups and padding mode, every dtype. They serve what the
// tiled kernels don't take, and are the ones to read first. A thread makes a piece of channels of one pixel, a warp one
// number of a weight's gradient.
#include "../tile/kernel.h"
#include "../tile/reduce.h"
#include "pixel.h"

namespace nk::cuda {

// The pixel of this thread and its piece of the channels of a group.
struct PlainWork {
    bool exists;
    int64_t pixel, group, channel;  // the channel within the group
    int count;

    __device__ __forceinline__ PlainWork(const PlainConvolutionParams& p, int64_t channels, int piece) {
        const int64_t pieces = (channels + piece - 1) / piece, all = p.groups * pieces;
        const int64_t index = int64_t{blockIdx.x} * kConvolutionThreads + threadIdx.x;
        exists = index < p.m * all;
        pixel = p.channels_inner ? index / all : index % p.m;
        const int64_t which = p.channels_inner ? index % all : index / p.m;
        group = which / pieces, channel = which % pieces * piece;
        count = static_cast<int>(channels - channel < piece ? channels - channel : piece);
    }
};

template <DType T>
__device__ __forceinline__ void plain_forward(const PlainConvolutionParams& p) {
    using Number = compute_t<T>;
    constexpr int N = kPiece<T>;
    const PlainWork work(p, p.result_channels, N);
    if (!work.exists) return;
    const Pixel to = pixel_of(work.pixel, p.out);
    const int64_t o = work.group * p.result_channels + work.channel;
    const void* const image = element<T>(static_cast<const void*>(p.image.data),
                                         to.image * p.image.image + work.group * p.image_channels * p.image.channel);
    const void* const weight = element<T>(static_cast<const void*>(p.weight.data), o * p.weight.image);
    Number sum[N] = {};
#pragma unroll 1
    for (int64_t tap = 0; tap < p.kernel[0] * p.kernel[1] * p.kernel[2]; ++tap) {
        const Pixel at = pixel_of(tap, p.kernel);
        int64_t from = 0;
        bool exists = true;
#pragma unroll
        for (int d = 0; d < kSpatial; ++d) {
            const int64_t place = to.at[d] * p.stride[d] - p.pad[d] + at.at[d] * p.dilation[d];
            const int64_t pixel = pixel_at(place, p.in[d], p.mode);
            exists = exists && pixel >= 0;
            from += pixel * p.image.pixel[d];
        }
        if (!exists) continue;
        const int64_t w = offset_of(p.weight, at);
#pragma unroll 1
        for (int64_t c = 0; c < p.image_channels; ++c) {
            const Number x = load<T>(image, from + c * p.image.channel);
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (i < work.count)
                    sum[i] = fma(x, load<T>(weight, w + c * p.weight.channel + i * p.weight.image), sum[i]);
        }
    }
    const PlainResults<T> results{p.result,         p.preact,         p.residual,        to,
                                  p.result.channel, p.preact.channel, p.residual.channel};
    finish<T>(p, results, 0, o, work.count, sum);
}

template <DType T>
__device__ __forceinline__ void plain_data_gradient(const PlainConvolutionParams& p) {
    using Number = compute_t<T>;
    constexpr int N = kPiece<T>;
    const PlainWork work(p, p.image_channels, N);
    if (!work.exists) return;
    const Pixel to = pixel_of(work.pixel, p.in);
    const int64_t o = work.group * p.result_channels;
    const void* const result =
        element<T>(static_cast<const void*>(p.result.data), to.image * p.result.image + o * p.result.channel);
    const void* const weight =
        element<T>(static_cast<const void*>(p.weight.data), o * p.weight.image + work.channel * p.weight.channel);
    const Places places[kSpatial] = {{to.at[0], p.in[0], p.pad[0], p.padded[0], p.mode},
                                     {to.at[1], p.in[1], p.pad[1], p.padded[1], p.mode},
                                     {to.at[2], p.in[2], p.pad[2], p.padded[2], p.mode}};
    const int64_t counts[kSpatial] = {places[0].count(), places[1].count(), places[2].count()};
    Number sum[N] = {};
#pragma unroll 1
    for (int64_t which = 0; which < counts[0] * counts[1] * counts[2]; ++which) {
        const Pixel place = pixel_of(which, counts);
#pragma unroll 1
        for (int64_t tap = 0; tap < p.kernel[0] * p.kernel[1] * p.kernel[2]; ++tap) {
            const Pixel at = pixel_of(tap, p.kernel);
            int64_t from = 0;
            bool exists = true;
#pragma unroll
            for (int d = 0; d < kSpatial; ++d) {
                const int64_t step = places[d].place(place.at[d]) + p.pad[d] - at.at[d] * p.dilation[d];
                const int64_t pixel = step / p.stride[d];
                exists = exists && step >= 0 && pixel * p.stride[d] == step && pixel < p.out[d];
                from += pixel * p.result.pixel[d];
            }
            if (!exists) continue;
            const int64_t w = offset_of(p.weight, at);
#pragma unroll 1
            for (int64_t k = 0; k < p.result_channels; ++k) {
                const Number g = load<T>(result, from + k * p.result.channel);
#pragma unroll
                for (int i = 0; i < N; ++i)
                    if (i < work.count)
                        sum[i] = fma(g, load<T>(weight, w + k * p.weight.image + i * p.weight.channel), sum[i]);
            }
        }
    }
    const PlainResults<T> results{p.image, p.preact, p.residual, to, p.image.channel, 0, 0};
    finish<T, false>(p, results, 0, work.group * p.image_channels + work.channel, work.count, sum);
}

template <DType T>
__device__ __forceinline__ void plain_weight_gradient(const PlainConvolutionParams& p) {
    using Number = compute_t<T>;
    const int64_t index = int64_t{blockIdx.x} * (kConvolutionThreads / kWarp) + threadIdx.x / kWarp;
    const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
    if (index >= p.groups * p.result_channels * p.image_channels * taps) return;
    const Pixel at = pixel_of(index, p.kernel);
    const int64_t c = at.image % p.image_channels, o = at.image / p.image_channels;
    const int64_t group = o / p.result_channels;
    const void* const image =
        element<T>(static_cast<const void*>(p.image.data), (group * p.image_channels + c) * p.image.channel);
    const void* const result = element<T>(static_cast<const void*>(p.result.data), o * p.result.channel);
    Number sum = 0;
#pragma unroll 1
    for (int64_t m = threadIdx.x % kWarp; m < p.m; m += kWarp) {
        const Pixel to = pixel_of(m, p.out);
        int64_t from = to.image * p.image.image;
        bool exists = true;
#pragma unroll
        for (int d = 0; d < kSpatial; ++d) {
            const int64_t place = to.at[d] * p.stride[d] - p.pad[d] + at.at[d] * p.dilation[d];
            const int64_t pixel = pixel_at(place, p.in[d], p.mode);
            exists = exists && pixel >= 0;
            from += pixel * p.image.pixel[d];
        }
        if (exists) sum = fma(load<T>(result, offset_of(p.result, to)), load<T>(image, from), sum);
    }
    sum = reduce_warp(sum, Add{});
    if (threadIdx.x % kWarp == 0) {
        Pixel to = at;
        to.image = o;
        store<T>(p.weight.data, offset_of(p.weight, to) + c * p.weight.channel, sum);
    }
}

template <DType T>
__device__ __forceinline__ void channel_sums(const ChannelSumsParams& p) {
    using Number = compute_t<T>;
    __shared__ Number scratch[kWarp];
    const int64_t channel = blockIdx.x, begin = blockIdx.y * p.per_part;
    const int64_t end = begin + p.per_part < p.count ? begin + p.per_part : p.count;
    Number sum = 0;
#pragma unroll 4
    for (int64_t i = begin + threadIdx.x; i < end; i += kConvolutionThreads)
        sum += load<T>(p.t.data, offset_of(p.t, pixel_of(i, p.pixels)) + channel * p.t.channel);
    sum = reduce_block(sum, scratch, Number(0), Add{});
    if (threadIdx.x != 0) return;
    if (p.partial)
        static_cast<Number*>(p.partial)[blockIdx.y * p.channels + channel] = sum;
    else
        store<T>(p.sums, channel * p.sums_step, sum);
}

}  // namespace nk::cuda

NK_KERNELS(convolution_plain_forward, nk::cuda::kConvolutionThreads, 4, nk::cuda::PlainConvolutionParams,
           nk::cuda::plain_forward<T>(p))
NK_KERNELS(convolution_plain_data, nk::cuda::kConvolutionThreads, 4, nk::cuda::PlainConvolutionParams,
           nk::cuda::plain_data_gradient<T>(p))
NK_KERNELS(convolution_plain_weight, nk::cuda::kConvolutionThreads, 4, nk::cuda::PlainConvolutionParams,
           nk::cuda::plain_weight_gradient<T>(p))
NK_KERNELS(convolution_channel_sums, nk::cuda::kConvolutionThreads, 4, nk::cuda::ChannelSumsParams,
           nk::cuda::channel_sums<T>(p))
