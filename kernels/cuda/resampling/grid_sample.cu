// grid_sample and its gradients. A thread has a point of the grid: for some channels of the samples, for all of them in
// the gradient of the grid. The gradient of the image is gathered: a block has a tile of pixels and looks at all points
// in their order, 256 at a time; those that its tile is in are taken one after the other by all threads, each of which
// has a pixel. So nothing is added by two threads.
#include "../tile/element.h"
#include "../tile/kernel.h"
#include "params.h"

namespace nk::cuda {

// The point of the grid, and where its coordinates lie.
struct GridPoint {
    int64_t at[3];
    int64_t grid;

    __device__ __forceinline__ GridPoint(const GridSampleParams& p, int64_t n, int64_t point) {
        at[2] = point % p.points[2];
        at[1] = point / p.points[2] % p.points[1];
        at[0] = point / p.points[2] / p.points[1];
        grid = n * p.grid_stride[0];
        for (int k = 0; k < 3; ++k) grid += at[k] * p.grid_stride[1 + k];
    }
    __device__ __forceinline__ int64_t in(const int64_t (&stride)[5]) const {
        return at[0] * stride[2] + at[1] * stride[3] + at[2] * stride[4];
    }
};

template <DType T, int dims, GridMode mode>
struct GridSampler {
    using C = compute_t<T>;
    using Taps = GridTaps<C, mode>;
    static constexpr int K = Taps::count, KD = dims == 3 ? K : 1;

    // Dim k of D, H, W; its coordinate is number 2 - k.
    static __device__ __forceinline__ Taps taps(const GridSampleParams& p, const GridPoint& point, int k) {
        return Taps(p.rule, p.size[k], load<T>(p.grid, point.grid + (2 - k) * p.grid_stride[4]));
    }

    static __device__ __forceinline__ C value(const GridSampleParams& p, int64_t plane, int64_t d, int64_t h,
                                              int64_t w) {
        if (d < 0 || h < 0 || w < 0) return 0;
        return load<T>(p.x, plane + d * p.x_stride[2] + h * p.x_stride[3] + w * p.x_stride[4]);
    }

    static __device__ __forceinline__ void sample(const GridSampleParams& p) {
        const int64_t points = p.points[0] * p.points[1] * p.points[2];
        const int64_t slices = (p.channels + kGridSlice - 1) / kGridSlice;
        const int64_t step = static_cast<int64_t>(gridDim.x) * kGridThreads;
        for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGridThreads + threadIdx.x; i < p.batch * slices * points;
             i += step) {
            const int64_t n = i / points / slices, from = i / points % slices * kGridSlice;
            const GridPoint point(p, n, i % points);
            const Taps w = taps(p, point, 2), h = taps(p, point, 1), d = dims == 3 ? taps(p, point, 0) : w;
            const int64_t end = from + kGridSlice < p.channels ? from + kGridSlice : p.channels;
            for (int64_t c = from; c < end; ++c) {
                const int64_t plane = n * p.x_stride[0] + c * p.x_stride[1];
                C sum = 0;
#pragma unroll
                for (int a = 0; a < KD; ++a)
#pragma unroll
                    for (int b = 0; b < K; ++b)
#pragma unroll
                        for (int e = 0; e < K; ++e) {
                            const C weight = h.weight[b] * w.weight[e] * (dims == 3 ? d.weight[a] : C(1));
                            sum += value(p, plane, dims == 3 ? d.index[a] : 0, h.index[b], w.index[e]) * weight;
                        }
                store<T>(p.out, (n * p.channels + c) * points + i % points, sum);
            }
        }
    }

    // How fast the sample changes along W, H and D.
    static __device__ __forceinline__ void slopes(const GridSampleParams& p, int64_t plane, const Taps& w,
                                                  const Taps& h, const Taps& d, C (&to)[3]) {
#pragma unroll
        for (int a = 0; a < KD; ++a) {
            const int64_t in_d = dims == 3 ? d.index[a] : 0;
            const C weight_d = dims == 3 ? d.weight[a] : C(1);
            if constexpr (mode == GridMode::bilinear) {
                C x[2][2];
#pragma unroll
                for (int b = 0; b < 2; ++b)
#pragma unroll
                    for (int e = 0; e < 2; ++e) x[b][e] = value(p, plane, in_d, h.index[b], w.index[e]);
#pragma unroll
                for (int b = 0; b < 2; ++b) {
                    to[0] += (x[b][1] - x[b][0]) * (h.weight[b] * weight_d);
                    to[1] += (x[1][b] - x[0][b]) * (w.weight[b] * weight_d);
                    if constexpr (dims == 3) {
                        if (a == 0) continue;
#pragma unroll
                        for (int e = 0; e < 2; ++e) {
                            const C before = value(p, plane, d.index[0], h.index[b], w.index[e]);
                            to[2] += (x[b][e] - before) * (h.weight[b] * w.weight[e]);
                        }
                    }
                }
            } else {
#pragma unroll
                for (int b = 0; b < K; ++b)
#pragma unroll
                    for (int e = 0; e < K; ++e) {
                        const C x = value(p, plane, in_d, h.index[b], w.index[e]);
                        to[0] += x * (w.bend[e] * h.weight[b]);
                        to[1] += x * (h.bend[b] * w.weight[e]);
                    }
            }
        }
    }

    static __device__ __forceinline__ void grid_gradient(const GridSampleParams& p) {
        const int64_t points = p.points[0] * p.points[1] * p.points[2];
        const int64_t step = static_cast<int64_t>(gridDim.x) * kGridThreads;
        for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGridThreads + threadIdx.x; i < p.batch * points;
             i += step) {
            const int64_t n = i / points;
            const GridPoint point(p, n, i % points);
            C sum[3] = {0, 0, 0};
            if constexpr (mode != GridMode::nearest) {
                const Taps w = taps(p, point, 2), h = taps(p, point, 1), d = dims == 3 ? taps(p, point, 0) : w;
                for (int64_t c = 0; c < p.channels; ++c) {
                    C slope[3] = {0, 0, 0};
                    slopes(p, n * p.x_stride[0] + c * p.x_stride[1], w, h, d, slope);
                    const C g = load<T>(p.g, n * p.g_stride[0] + c * p.g_stride[1] + point.in(p.g_stride));
#pragma unroll
                    for (int j = 0; j < dims; ++j) sum[j] += slope[j] * g;
                }
                sum[0] *= w.scale, sum[1] *= h.scale, sum[2] *= d.scale;
            }
#pragma unroll
            for (int j = 0; j < dims; ++j) store<T>(p.out, i * dims + j, sum[j]);
        }
    }

    // The weight of element i; a point may be made of it several times.
    static __device__ __forceinline__ C weight_of(const int* index, const C* weight, int i) {
        C sum = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) sum += index[k] == i ? weight[k] : C(0);
        return sum;
    }

    static __device__ __forceinline__ void image_gradient(const GridSampleParams& p) {
        __shared__ int index[kGridThreads][dims][K];
        __shared__ C weight[kGridThreads][dims][K];
        __shared__ unsigned hits[kGridThreads / 32];
        const int64_t points = p.points[0] * p.points[1] * p.points[2];
        const int64_t slices = (p.channels + kGridSlice - 1) / kGridSlice;
        const int64_t all = p.tiles[0] * p.tiles[1] * p.tiles[2] * slices * p.batch;
        const int me = static_cast<int>(threadIdx.x);
        for (int64_t item = blockIdx.x; item < all; item += gridDim.x) {
            int64_t rest = item, low[3], at[3];
            int place = me;
            for (int k = 2; k >= 0; --k) {
                low[k] = rest % p.tiles[k] * p.tile[k], rest /= p.tiles[k];
                at[k] = low[k] + place % p.tile[k], place /= static_cast<int>(p.tile[k]);
            }
            const int64_t from = rest % slices * kGridSlice, n = rest / slices;
            const int count = static_cast<int>(from + kGridSlice < p.channels ? kGridSlice : p.channels - from);
            C sum[kGridSlice] = {};
            for (int64_t begin = 0; begin < points; begin += kGridThreads) {
                bool hit = begin + me < points;
                if (hit) {
                    const GridPoint point(p, n, begin + me);
#pragma unroll
                    for (int j = 0; j < dims; ++j) {
                        const int k = 2 - j;
                        const Taps t = taps(p, point, k);
                        bool inside = false;
#pragma unroll
                        for (int e = 0; e < K; ++e) {
                            inside |= t.index[e] >= low[k] && t.index[e] < low[k] + p.tile[k];
                            index[me][j][e] = static_cast<int>(t.index[e]), weight[me][j][e] = t.weight[e];
                        }
                        hit &= inside;
                    }
                }
                const unsigned word = __ballot_sync(0xffffffffu, hit);
                if (me % 32 == 0) hits[me / 32] = word;
                __syncthreads();
                for (int i = 0; i < kGridThreads / 32; ++i)
                    for (unsigned left = hits[i]; left != 0; left &= left - 1) {
                        const int q = i * 32 + __ffs(static_cast<int>(left)) - 1;
                        bool mine = true;
                        C here = 1;
#pragma unroll
                        for (int j = 0; j < dims; ++j) {
                            const int element = static_cast<int>(at[2 - j]);
                            bool among = false;
#pragma unroll
                            for (int e = 0; e < K; ++e) among |= index[q][j][e] == element;
                            mine &= among;
                            here *= weight_of(index[q][j], weight[q][j], element);
                        }
                        if (!mine) continue;
                        const int64_t g =
                            n * p.g_stride[0] + from * p.g_stride[1] + GridPoint(p, n, begin + q).in(p.g_stride);
#pragma unroll
                        for (int c = 0; c < kGridSlice; ++c)
                            if (c < count) sum[c] += load<T>(p.g, g + c * p.g_stride[1]) * here;
                    }
                __syncthreads();
            }
            if (at[0] >= p.size[0] || at[1] >= p.size[1] || at[2] >= p.size[2]) continue;
            const int64_t pixels = p.size[0] * p.size[1] * p.size[2];
            const int64_t pixel = (at[0] * p.size[1] + at[1]) * p.size[2] + at[2];
#pragma unroll
            for (int c = 0; c < kGridSlice; ++c)
                if (c < count) store<T>(p.out, (n * p.channels + from + c) * pixels + pixel, sum[c]);
        }
    }
};

}  // namespace nk::cuda

#define NK_GRID_KERNELS(suffix, dims, mode)                                                                \
    NK_KERNELS(grid_sample_##suffix, nk::cuda::kGridThreads, 2, nk::cuda::GridSampleParams,                \
               nk::cuda::GridSampler<T, dims, nk::GridMode::mode>::sample(p))                              \
    NK_KERNELS(grid_sample_image_gradient_##suffix, nk::cuda::kGridThreads, 2, nk::cuda::GridSampleParams, \
               nk::cuda::GridSampler<T, dims, nk::GridMode::mode>::image_gradient(p))                      \
    NK_KERNELS(grid_sample_grid_gradient_##suffix, nk::cuda::kGridThreads, 2, nk::cuda::GridSampleParams,  \
               nk::cuda::GridSampler<T, dims, nk::GridMode::mode>::grid_gradient(p))

NK_GRID_KERNELS(bilinear2, 2, bilinear)
NK_GRID_KERNELS(nearest2, 2, nearest)
NK_GRID_KERNELS(bicubic2, 2, bicubic)
NK_GRID_KERNELS(bilinear3, 3, bilinear)
NK_GRID_KERNELS(nearest3, 3, nearest)
