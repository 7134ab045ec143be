// The second half of a product whose k was split over blocks: adds the partial sums of the workspace in the order of
// the splits, the same in every run, and finishes them. One thread takes 16 bytes of accumulators of one row.
#include "epilogue.h"

namespace nk::cuda {

inline constexpr int kReduceThreads = 256;

template <DType T>
__device__ __forceinline__ void reduce_splits(const MatmulParams& p) {
    using Number = typename tile::Element<T>::Number;
    constexpr int kLanes = tile::kLanes<T>;
    const int64_t per_row = (p.n + kLanes - 1) / kLanes;
    const int64_t index = int64_t{blockIdx.x} * kReduceThreads + threadIdx.x;
    if (index >= p.m * per_row) return;
    const int64_t m = index / per_row, n = index % per_row * kLanes;
    Number sum[kLanes] = {};
#pragma unroll 4
    for (int split = 0; split < p.splits; ++split) {
        const Number* from = workspace_row<Number>(p, split, blockIdx.z, m) + n;
        Number part[kLanes];
        if constexpr (kLanes == 4)
            tile::load_wide<DType::f32>(from, part);
        else
            tile::load_wide<DType::f64>(from, part);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) sum[i] += part[i];
    }
    finish<T>(p, BatchEntry<T>(p, p.batch_begin + blockIdx.z), m, n, sum);
}

}  // namespace nk::cuda

#define NK_REDUCE_KERNEL(element)                                                   \
    extern "C" __global__ void __launch_bounds__(nk::cuda::kReduceThreads)          \
        matmul_reduce_##element(const __grid_constant__ nk::cuda::MatmulParams p) { \
        nk::cuda::reduce_splits<nk::DType::element>(p);                             \
    }

NK_REDUCE_KERNEL(f32)
NK_REDUCE_KERNEL(f64)
NK_REDUCE_KERNEL(f16)
NK_REDUCE_KERNEL(bf16)
