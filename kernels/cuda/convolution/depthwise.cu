// Depthwise convolutions: each channel of an image has a window of its own. A block has some channels, whose weights it
// keeps in shared memory, and a thread one pixel of them: a unit of 16 bytes where channels lie side by side, else one,
// and its neighbours are the next pixels. A weight's gradient is added by blocks that each have one tap, a part of the
// pixels, and some channels; the parts are added in order.
#include "../elementwise/columns.h"
#include "../tile/kernel.h"
#include "pixel.h"

namespace nk::cuda {

// Whether pixel `to` of what is made meets tap u of one dim, and where in the source.
template <bool Gradient>
__device__ __forceinline__ int source_of(const DepthwiseParams& p, int d, int to, int u) {
    if constexpr (Gradient) {
        const int step = to + p.pad[d] - u * p.dilation[d];
        if (step < 0) return -1;
        const int at = static_cast<int>(divide(static_cast<uint32_t>(step), p.strides[d]));
        return at * p.stride[d] == step && at < p.out[d] ? at : -1;
    } else {
        return static_cast<int>(pixel_at(to * p.stride[d] - p.pad[d] + u * p.dilation[d], p.in[d], p.mode));
    }
}

__device__ __forceinline__ Pixel depthwise_pixel(const DepthwiseParams& p, int64_t index) {
    Pixel x;
    uint32_t rest = static_cast<uint32_t>(index);
#pragma unroll
    for (int d = kSpatial - 1; d >= 0; --d) {
        const uint32_t next = divide(rest, p.size[d]);
        x.at[d] = rest - next * p.size[d].value;
        rest = next;
    }
    x.image = rest;
    return x;
}

// `U` channels of one pixel.
template <DType T, int U>
__device__ __forceinline__ void load_channels(const void* from, int64_t at, compute_t<T> (&v)[U]) {
    if constexpr (U == 1)
        v[0] = load<T>(from, at);
    else
        unpack<T>(load_unit(element<T>(from, at)), v);
}

template <DType T, bool Gradient, bool Vector>
__device__ __forceinline__ void depthwise(const DepthwiseParams& p) {
    constexpr int U = Vector ? kUnit<T> : 1, N = kPiece<T>;
    using Number = compute_t<T>;
    __shared__ Number weights[kDepthwiseWeights];  // [tap][channels of the result that this block's come from or make]
    const int lanes = 1 << p.lanes_log2, lane = threadIdx.x & (lanes - 1);
    const int first = blockIdx.y * lanes * U, times = Gradient ? p.times : 1, columns = lanes * U * times;
    const int taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
    for (int i = threadIdx.x; i < taps * columns; i += kDepthwiseThreads) {
        const int tap = i / columns, o = first * times + i % columns;
        const int rest = tap / p.kernel[2];
        const int64_t at = rest / p.kernel[1] * p.weight.pixel[0] + rest % p.kernel[1] * p.weight.pixel[1] +
                           tap % p.kernel[2] * p.weight.pixel[2];
        weights[i] = o < p.channels * times ? load<T>(p.weight.data, o * p.weight.image + at) : Number(0);
    }
    __syncthreads();
    const int64_t index = int64_t{blockIdx.x} * (kDepthwiseThreads >> p.lanes_log2) + (threadIdx.x >> p.lanes_log2);
    const int channel = first + lane * U;
    if (index >= p.pixels || channel >= p.channels) return;

    const Pixel to = depthwise_pixel(p, index);
    const ImagesRef& source = Gradient ? p.result : p.image;
    const int64_t from =
        to.image * source.image + (Gradient ? int64_t{channel} * times : channel / p.times) * source.channel;
    const Number* w = weights + lane * U * times;
    Number sum[U] = {};
#pragma unroll 1
    for (int i = 0; i < p.kernel[0]; ++i) {
        const int z = source_of<Gradient>(p, 0, static_cast<int>(to.at[0]), i);
#pragma unroll 1
        for (int j = 0; j < p.kernel[1]; ++j) {
            const int y = source_of<Gradient>(p, 1, static_cast<int>(to.at[1]), j);
            const int64_t row = from + z * source.pixel[0] + y * source.pixel[1];
#pragma unroll 2
            for (int k = 0; k < p.kernel[2]; ++k, w += columns) {
                const int x = source_of<Gradient>(p, 2, static_cast<int>(to.at[2]), k);
                if ((z | y | x) < 0) continue;
                for (int t = 0; t < times; ++t) {
                    Number v[U];
                    load_channels<T>(source.data, row + x * source.pixel[2] + t * source.channel, v);
#pragma unroll
                    for (int c = 0; c < U; ++c) sum[c] = fma(v[c], w[Vector ? c : t], sum[c]);
                }
            }
        }
    }
    const ImagesRef& made = Gradient ? p.image : p.result;
    const PlainResults<T> results{made, p.preact, p.residual, to, made.channel, p.preact.channel, p.residual.channel};
#pragma unroll
    for (int piece = 0; piece < U; piece += N) {
        Number v[N];
#pragma unroll
        for (int c = 0; c < N; ++c) v[c] = piece + c < U ? sum[(piece + c) % U] : Number(0);
        finish<T, !Gradient>(p, results, 0, channel + piece, Vector ? N : 1, v);
    }
}

// A part of the pixels for one tap and the block's channels of the result.
template <DType T, bool Vector>
__device__ __forceinline__ void depthwise_weight(const DepthwiseParams& p) {
    constexpr int U = Vector ? kUnit<T> : 1;
    using Number = compute_t<T>;
    static_assert(kDepthwiseThreads == kColumnThreads, "add_row_groups adds those of a block");
    __shared__ Number scratch[U][kColumnThreads];
    const int lanes = 1 << p.lanes_log2, lane = threadIdx.x & (lanes - 1);
    const int groups = kColumnThreads >> p.lanes_log2, group = threadIdx.x >> p.lanes_log2;
    const int channel = (blockIdx.x * lanes + lane) * U;
    const int tap = blockIdx.y, rest = tap / p.kernel[2];
    const int u[kSpatial] = {rest / p.kernel[1], rest % p.kernel[1], tap % p.kernel[2]};
    const int64_t begin = blockIdx.z * p.per_part;
    const int64_t end = begin + p.per_part < p.pixels ? begin + p.per_part : p.pixels;
    Number sum[U] = {};
    if (channel < p.channels) {
#pragma unroll 2
        for (int64_t index = begin + group; index < end; index += groups) {
            const Pixel at = depthwise_pixel(p, index);
            int64_t from = at.image * p.image.image + channel / p.times * p.image.channel;
            int outside = 0;
#pragma unroll
            for (int d = 0; d < kSpatial; ++d) {
                const int pixel = source_of<false>(p, d, static_cast<int>(at.at[d]), u[d]);
                outside |= pixel;
                from += pixel * p.image.pixel[d];
            }
            if (outside < 0) continue;
            Number x[U], g[U];
            load_channels<T>(p.image.data, from, x);
            load_channels<T>(p.result.data, offset_of(p.result, at) + channel * p.result.channel, g);
#pragma unroll
            for (int c = 0; c < U; ++c) sum[c] = fma(g[c], x[c], sum[c]);
        }
    }
#pragma unroll
    for (int c = 0; c < U; ++c) scratch[c][threadIdx.x] = sum[c];
    add_row_groups(scratch, U, lanes, group, groups);
    if (group != 0 || channel >= p.channels) return;
    const int taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
    for (int c = 0; c < U; ++c)
        static_cast<Number*>(p.partial)[(int64_t{blockIdx.z} * p.channels + channel + c) * taps + tap] =
            scratch[c][threadIdx.x];
}

template <DType T>
__device__ __forceinline__ void depthwise_finish(const DepthwiseParams& p) {
    using Number = compute_t<T>;
    const int64_t index = int64_t{blockIdx.x} * kDepthwiseThreads + threadIdx.x;
    const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2], count = p.channels * taps;
    if (index >= count) return;
    Number sum = 0;
#pragma unroll 4
    for (int part = 0; part < p.parts; ++part) sum += static_cast<const Number*>(p.partial)[part * count + index];
    const int64_t kernel[kSpatial] = {p.kernel[0], p.kernel[1], p.kernel[2]};
    store<T>(p.weight.data, offset_of(p.weight, pixel_of(index, kernel)), sum);
}

}  // namespace nk::cuda

NK_KERNELS(convolution_depthwise_forward, nk::cuda::kDepthwiseThreads, 2, nk::cuda::DepthwiseParams,
           nk::cuda::depthwise<T, false, false>(p))
NK_KERNELS(convolution_depthwise_forward_units, nk::cuda::kDepthwiseThreads, 2, nk::cuda::DepthwiseParams,
           nk::cuda::depthwise<T, false, true>(p))
NK_KERNELS(convolution_depthwise_data, nk::cuda::kDepthwiseThreads, 2, nk::cuda::DepthwiseParams,
           nk::cuda::depthwise<T, true, false>(p))
NK_KERNELS(convolution_depthwise_data_units, nk::cuda::kDepthwiseThreads, 2, nk::cuda::DepthwiseParams,
           nk::cuda::depthwise<T, true, true>(p))
NK_KERNELS(convolution_depthwise_weight, nk::cuda::kDepthwiseThreads, 2, nk::cuda::DepthwiseParams,
           nk::cuda::depthwise_weight<T, false>(p))
NK_KERNELS(convolution_depthwise_weight_units, nk::cuda::kDepthwiseThreads, 2, nk::cuda::DepthwiseParams,
           nk::cuda::depthwise_weight<T, true>(p))
NK_KERNELS(convolution_depthwise_finish, nk::cuda::kDepthwiseThreads, 2, nk::cuda::DepthwiseParams,
           nk::cuda::depthwise_finish<T>(p))
