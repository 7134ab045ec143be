// The average of each window and lp_pool, and their gradients: one thread for each output, or each element of the
// input, which adds what it gets from the windows that hold it.
#include "../tile/kernel.h"
#include "points.h"

namespace nk::cuda {

// x^p as torch has it: NaN of a negative x where p is not whole.
template <class C>
__device__ __forceinline__ C pool_power(C x, double p) {
    if (p == 1) return x;
    if (p == 0) return C(1);
    if (p == static_cast<int>(p) && p > 0 && p <= 8) {
        C y = x;
        for (int i = 1; i < static_cast<int>(p); ++i) y *= x;
        return y;
    }
    if (p == 0.5) return static_cast<C>(sqrt(static_cast<double>(x)));
    if (p == -1) return C(1) / x;
    return static_cast<C>(pow(static_cast<double>(x), p));
}

template <class C>
__device__ __forceinline__ C pool_divisor(const PoolParams& p, int64_t d, int64_t h, int64_t w) {
    if (p.divisor != 0) return static_cast<C>(p.divisor);
    return static_cast<C>(pool_count(p.dim[0], d, p.include_pad) * pool_count(p.dim[1], h, p.include_pad) *
                          pool_count(p.dim[2], w, p.include_pad));
}

template <DType T>
__device__ __forceinline__ void pool_average(const PoolParams& p) {
    using C = compute_t<T>;
    each_point(p.points, [&](const int64_t (&at)[5]) {
        const PoolRange rd = pool_window(p.dim[0], at[2]), rh = pool_window(p.dim[1], at[3]);
        const PoolRange rw = pool_window(p.dim[2], at[4]);
        C sum = 0;
        for (int64_t d = rd.begin; d < rd.end; ++d)
            for (int64_t h = rh.begin; h < rh.end; ++h) {
                C row = 0;  // long sums round less in parts
                for (int64_t w = rw.begin; w < rw.end; ++w) {
                    const C x = load<T>(p.in.data, offset_of(p.in, at, d, h, w));
                    row += p.norm != 0 ? pool_power(x, p.norm) : x;
                }
                sum += row;
            }
        sum /= pool_divisor<C>(p, at[2], at[3], at[4]);
        if (p.norm != 0) sum = pool_power(sum * static_cast<C>(p.full), 1 / p.norm);
        store<T>(p.out.data, offset_of(p.out, at), sum);
    });
}

template <DType T>
__device__ __forceinline__ void pool_average_backward(const PoolParams& p) {
    using C = compute_t<T>;
    each_point(p.points, [&](const int64_t (&at)[5]) {
        const PoolRange rd = pool_holders(p.dim[0], at[2]), rh = pool_holders(p.dim[1], at[3]);
        const PoolRange rw = pool_holders(p.dim[2], at[4]);
        C sum = 0;
        for (int64_t d = rd.begin; d < rd.end; ++d)
            for (int64_t h = rh.begin; h < rh.end; ++h)
                for (int64_t w = rw.begin; w < rw.end; ++w) {
                    C g = load<T>(p.gradient.data, offset_of(p.gradient, at, d, h, w));
                    if (p.norm != 0) {
                        const C y = load<T>(p.result.data, offset_of(p.result, at, d, h, w));
                        // nothing where the sum is 0, as in torch
                        g = y == 0 ? C(0) : g * pool_power(y, 1 - p.norm) * static_cast<C>(p.full);
                    }
                    sum += g / pool_divisor<C>(p, d, h, w);
                }
        if (p.norm != 0) sum *= pool_power(load<T>(p.in.data, offset_of(p.in, at)), p.norm - 1);
        store<T>(p.out.data, offset_of(p.out, at), sum);
    });
}

}  // namespace nk::cuda

NK_KERNELS(pool_average, nk::cuda::kPoolThreads, 2, nk::cuda::PoolParams, nk::cuda::pool_average<T>(p))
NK_KERNELS(pool_average_backward, nk::cuda::kPoolThreads, 2, nk::cuda::PoolParams,
           nk::cuda::pool_average_backward<T>(p))
