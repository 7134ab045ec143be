// max_unpool: elements at the places that their indices name, zeros elsewhere. Of several elements at one place the
// last wins, whatever the order of the threads: each place takes the largest number by an atomic, and reads that
// element.
#include "../tile/kernel.h"
#include "points.h"

namespace nk::cuda {

__device__ __forceinline__ int64_t checked_place(const UnpoolParams& p, int64_t offset) {
    const int64_t place = static_cast<const int64_t*>(p.indices.data)[offset];
    if (place < 0 || place >= p.places) __trap();  // as torch's kernel does
    return place;
}

// The offset of element `place` of the plane of `at`.
__device__ __forceinline__ int64_t offset_of_place(const PoolTensor& t, const UnpoolParams& p, const int64_t (&at)[5],
                                                   int64_t place) {
    const int64_t row = pool_quotient(place, p.size[2]), d = pool_quotient(row, p.size[1]);
    return offset_of(t, at, d, row - d * p.size[1], place - row * p.size[2]);
}

__device__ __forceinline__ void unpool_clear(const UnpoolParams& p) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * kPoolThreads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kPoolThreads + threadIdx.x; i < p.points.count; i += step)
        p.winner[i] = 0;
}

__device__ __forceinline__ void unpool_mark(const UnpoolParams& p) {
    each_point(p.points, [&](const int64_t (&at)[5]) {
        const int64_t number = (at[2] * p.points.size[3] + at[3]) * p.points.size[4] + at[4];
        const int64_t plane = at[0] * p.points.size[1] + at[1];
        atomicMax(p.winner + plane * p.places + checked_place(p, offset_of(p.indices, at)),
                  static_cast<unsigned long long>(number + 1));
    });
}

template <DType T>
__device__ __forceinline__ void unpool_take(const UnpoolParams& p) {
    each_point(p.points, [&](const int64_t (&at)[5]) {
        const int64_t plane = at[0] * p.points.size[1] + at[1];
        const int64_t place = (at[2] * p.points.size[3] + at[3]) * p.points.size[4] + at[4];
        const unsigned long long winner = p.winner[plane * p.places + place];
        memory_t<T> v = {};
        if (winner != 0) v = *element<T>(p.in.data, offset_of_place(p.in, p, at, static_cast<int64_t>(winner - 1)));
        *element<T>(p.out.data, offset_of(p.out, at)) = v;
    });
}

template <DType T>
__device__ __forceinline__ void unpool_backward(const UnpoolParams& p) {
    each_point(p.points, [&](const int64_t (&at)[5]) {
        const int64_t place = checked_place(p, offset_of(p.indices, at));
        *element<T>(p.out.data, offset_of(p.out, at)) = *element<T>(p.in.data, offset_of_place(p.in, p, at, place));
    });
}

}  // namespace nk::cuda

extern "C" __global__ void __launch_bounds__(nk::cuda::kPoolThreads)
    unpool_clear(const __grid_constant__ nk::cuda::UnpoolParams p) {
    nk::cuda::unpool_clear(p);
}
extern "C" __global__ void __launch_bounds__(nk::cuda::kPoolThreads)
    unpool_mark(const __grid_constant__ nk::cuda::UnpoolParams p) {
    nk::cuda::unpool_mark(p);
}
NK_KERNELS(unpool_take, nk::cuda::kPoolThreads, 2, nk::cuda::UnpoolParams, nk::cuda::unpool_take<T>(p))
NK_KERNELS(unpool_backward, nk::cuda::kPoolThreads, 2, nk::cuda::UnpoolParams, nk::cuda::unpool_backward<T>(p))
