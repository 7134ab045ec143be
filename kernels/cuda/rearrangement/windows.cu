// Pixels under a sliding window as columns, and the sums back as a gather: each pixel adds up the columns over it.
#include "walk.h"

namespace nk::cuda {

template <DType T>
__device__ __forceinline__ void unfold(const WindowParams& p) {
    each_element(p.count, [&](int64_t i) {
        int64_t n = i;
        const int64_t ow = take(n, p.places[1], p.wide), oh = take(n, p.places[0], p.wide);
        const int64_t kw = take(n, p.kernel[1], p.wide), kh = take(n, p.kernel[0], p.wide);
        const int64_t c = take(n, p.channels, p.wide);
        const int64_t h = oh * p.stride[0] + kh * p.dilation[0] - p.padding[0];
        const int64_t w = ow * p.stride[1] + kw * p.dilation[1] - p.padding[1];
        const bool inside = h >= 0 && h < p.image[0] && w >= 0 && w < p.image[1];
        const int64_t at = n * p.from[0] + c * p.from[1] + h * p.from[2] + w * p.from[3];
        *element<T>(p.out, i) = inside ? *element<T>(p.in, at) : memory_t<T>(0);
    });
}

// The place at which element k of the window lies over a pixel, or -1.
__device__ __forceinline__ int64_t place_over(const WindowParams& p, int d, int64_t pixel, int64_t k) {
    const int64_t at = pixel + p.padding[d] - k * p.dilation[d];
    if (at < 0) return -1;
    int64_t place = at;
    const int64_t rest = take(place, p.stride[d], p.wide);
    return rest == 0 && place < p.places[d] ? place : -1;
}

template <DType T>
__device__ __forceinline__ void fold(const WindowParams& p) {
    each_element(p.count, [&](int64_t i) {
        int64_t n = i;
        const int64_t w = take(n, p.image[1], p.wide), h = take(n, p.image[0], p.wide);
        const int64_t c = take(n, p.channels, p.wide);
        const int64_t first = n * p.from[0] + c * p.kernel[0] * p.kernel[1] * p.from[1];
        compute_t<T> sum = 0;
#pragma unroll 1
        for (int64_t kh = 0; kh < p.kernel[0]; ++kh) {
            const int64_t oh = place_over(p, 0, h, kh);
            if (oh < 0) continue;
#pragma unroll 1
            for (int64_t kw = 0; kw < p.kernel[1]; ++kw) {
                const int64_t ow = place_over(p, 1, w, kw);
                if (ow < 0) continue;
                sum += load<T>(p.in, first + (kh * p.kernel[1] + kw) * p.from[1] + (oh * p.places[1] + ow) * p.from[2]);
            }
        }
        store<T>(p.out, i, sum);
    });
}

}  // namespace nk::cuda

NK_KERNELS(rearrangement_unfold, nk::cuda::kRearrangementThreads, 4, nk::cuda::WindowParams, nk::cuda::unfold<T>(p))
NK_KERNELS(rearrangement_fold, nk::cuda::kRearrangementThreads, 4, nk::cuda::WindowParams, nk::cuda::fold<T>(p))
