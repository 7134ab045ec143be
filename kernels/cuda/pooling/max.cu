// The maximum of each window with its place, and the gradient: one thread for each output, or each element of the
// input, which asks the windows that may hold it whether it was their maximum. Nothing is added by two threads.
#include "../tile/kernel.h"
#include "points.h"

namespace nk::cuda {

template <DType T>
__device__ __forceinline__ void pool_max(const PoolParams& p) {
    using C = compute_t<T>;
    each_point(p.points, [&](const int64_t (&at)[5]) {
        const PlaneWindows<T> windows(p, at);
        const PoolRange rd = windows.window(0, at[2]), rh = windows.window(1, at[3]), rw = windows.window(2, at[4]);
        const int64_t height = p.dim[1].in, width = p.dim[2].in;
        C best = -static_cast<C>(__longlong_as_double(0x7ff0000000000000));
        int64_t place = (rd.begin * height + rh.begin) * width + rw.begin;
        // of equal elements the first is taken, of NaNs the last
        for (int64_t d = rd.begin; d < rd.end; d += p.dim[0].dilation)
            for (int64_t h = rh.begin; h < rh.end; h += p.dim[1].dilation)
                for (int64_t w = rw.begin; w < rw.end; w += p.dim[2].dilation) {
                    const C v = load<T>(p.in.data, offset_of(p.in, at, d, h, w));
                    if (v > best || v != v) best = v, place = (d * height + h) * width + w;
                }
        store<T>(p.out.data, offset_of(p.out, at), best);
        if (p.indices.data == nullptr) return;
        const int64_t to = offset_of(p.indices, at);
        if (p.wide)
            static_cast<int64_t*>(p.indices.data)[to] = place;
        else
            static_cast<int32_t*>(p.indices.data)[to] = static_cast<int32_t>(place);
    });
}

template <DType T>
__device__ __forceinline__ void pool_max_backward(const PoolParams& p) {
    using C = compute_t<T>;
    each_point(p.points, [&](const int64_t (&at)[5]) {
        const PoolRange rd = pool_holders(p.dim[0], at[2]), rh = pool_holders(p.dim[1], at[3]),
                        rw = pool_holders(p.dim[2], at[4]);
        const int64_t here = (at[2] * p.dim[1].in + at[3]) * p.dim[2].in + at[4];
        C sum = 0;
        for (int64_t d = rd.begin; d < rd.end; ++d)
            for (int64_t h = rh.begin; h < rh.end; ++h)
                for (int64_t w = rw.begin; w < rw.end; ++w)
                    if (place_at(p, offset_of(p.indices, at, d, h, w)) == here)
                        sum += load<T>(p.gradient.data, offset_of(p.gradient, at, d, h, w));
        store<T>(p.out.data, offset_of(p.out, at), sum);
    });
}

}  // namespace nk::cuda

NK_KERNELS(pool_max, nk::cuda::kPoolThreads, 2, nk::cuda::PoolParams, nk::cuda::pool_max<T>(p))
NK_KERNELS(pool_max_backward, nk::cuda::kPoolThreads, 2, nk::cuda::PoolParams, nk::cuda::pool_max_backward<T>(p))
