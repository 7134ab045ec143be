// The second half of a product whose k was split over blocks: adds the partial sums of the workspace in the order of
// the splits, the same in every run, and finishes them. One thread takes 16 bytes of accumulators of one row.
#include "operands.h"

namespace nk::cuda {

inline constexpr int kReduceThreads = 256;

template <DType T>
__device__ __forceinline__ void reduce_splits(const MatmulParams& p) {
    using Number = compute_t<T>;
    constexpr int N = kPiece<T>;
    constexpr DType kPartial = sizeof(Number) == 8 ? DType::f64 : DType::f32;
    const int64_t per_row = (p.n + N - 1) / N;
    const int64_t index = int64_t{blockIdx.x} * kReduceThreads + threadIdx.x;
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
