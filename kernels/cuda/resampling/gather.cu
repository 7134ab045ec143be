// Interpolation and its gradient: a thread for each element that is written, which adds what it is made of. A gradient
// finds the outputs that its element is in by bisection, so that nothing is added by two threads.
#include "../tile/element.h"
#include "../tile/kernel.h"
#include "params.h"

namespace nk::cuda {

// f(offset in out, offset in x of this plane, [d, h, w]) for each point of this thread.
template <class F>
__device__ __forceinline__ void each_resampled(const ResampleParams& p, F f) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * kResampleThreads;
    for (int64_t n = static_cast<int64_t>(blockIdx.x) * kResampleThreads + threadIdx.x; n < p.count; n += step) {
        int64_t index = n, at[5];
        const auto take = [&](int d) {
            const int64_t rest =
                p.count >> 31 == 0 ? divide(static_cast<uint32_t>(index), p.divisor[d]) : index / p.size[d];
            at[d] = index - rest * p.size[d];
            index = rest;
        };
        if (p.channels) take(1);
        take(4);
        take(3);
        take(2);
        if (!p.channels) take(1);
        at[0] = index;
        int64_t to = 0;
#pragma unroll
        for (int d = 0; d < 5; ++d) to += at[d] * p.out_stride[d];
        f(to, at[0] * p.x_stride[0] + at[1] * p.x_stride[1], at + 2);
    }
}

template <DType T>
__device__ __forceinline__ void resample(const ResampleParams& p) {
    using C = compute_t<T>;
    each_resampled(p, [&](int64_t to, int64_t plane, const int64_t* at) {
        const ResampleTaps<C> d(p.dim[0], at[0]), h(p.dim[1], at[1]), w(p.dim[2], at[2]);
        C volume = 0;
        for (int64_t i = 0; i < d.count; ++i) {
            C area = 0;
            const int64_t in_d = plane + resample_source(p.dim[0], d.first, i) * p.x_stride[2];
            for (int64_t j = 0; j < h.count; ++j) {
                C row = 0;
                const int64_t in_h = in_d + resample_source(p.dim[1], h.first, j) * p.x_stride[3];
                for (int64_t k = 0; k < w.count; ++k)
                    row += load<T>(p.x, in_h + resample_source(p.dim[2], w.first, k) * p.x_stride[4]) * w.weight(k);
                area += row * h.weight(j);
            }
            volume += area * d.weight(i);
        }
        store<T>(p.out, to, volume);
    });
}

// The first output with !before(taps), of those whose taps come in order.
template <class C, class F>
__device__ __forceinline__ int64_t first_output(const ResampleDim& d, F before) {
    int64_t low = 0, high = d.out;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (before(ResampleTaps<C>(d, middle)))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// f(output, weight) for all outputs that element i is in.
template <class C, class F>
__device__ __forceinline__ void each_holder(const ResampleDim& d, int64_t i, F f) {
    if (d.in == 1 && d.out == 1) return f(0, C(1));  // a dim that is not there
    int64_t o = first_output<C>(d, [&](const ResampleTaps<C>& t) { return t.first + t.count <= i; });
    for (; o < d.out; ++o) {
        const ResampleTaps<C> t(d, o);
        if (t.first > i) break;
        for (int64_t k = 0; k < t.count; ++k)
            if (resample_source(d, t.first, k) == i) f(o, t.weight(k));
    }
}

template <DType T>
__device__ __forceinline__ void resample_backward(const ResampleParams& p) {
    using C = compute_t<T>;
    each_resampled(p, [&](int64_t to, int64_t plane, const int64_t* at) {
        C volume = 0;
        each_holder<C>(p.dim[0], at[0], [&](int64_t od, C wd) {
            C area = 0;
            each_holder<C>(p.dim[1], at[1], [&](int64_t oh, C wh) {
                C row = 0;
                const int64_t in = plane + od * p.x_stride[2] + oh * p.x_stride[3];
                each_holder<C>(p.dim[2], at[2],
                               [&](int64_t ow, C ww) { row += load<T>(p.x, in + ow * p.x_stride[4]) * ww; });
                area += row * wh;
            });
            volume += area * wd;
        });
        store<T>(p.out, to, volume);
    });
}

}  // namespace nk::cuda

NK_KERNELS(resample, nk::cuda::kResampleThreads, 2, nk::cuda::ResampleParams, nk::cuda::resample<T>(p))
NK_KERNELS(resample_backward, nk::cuda::kResampleThreads, 2, nk::cuda::ResampleParams,
           nk::cuda::resample_backward<T>(p))
