// layer_norm and rms_norm (where there is no mean) and their gradients in x. Which kernel serves which row length is
// decided in csrc/plan/rows_cuda.h; the number in a name is how many values of a row each thread keeps in registers.
#include "rows.h"

#include "../tile/kernel.h"

namespace nk::cuda {

template <DType T, int N>
__device__ __forceinline__ void norm_warp(const NormParams& p) {
    warp_row<3>(p, [&](const auto& r, const int64_t (&at)[3], int n) { norm_in_registers<T, N>(p, r, at, n); });
}
template <DType T, int N>
__device__ __forceinline__ void norm_warp(const NormBackwardParams& p) {
    warp_row<4>(p,
                [&](const auto& r, const int64_t (&at)[4], int n) { norm_backward_in_registers<T, N>(p, r, at, n); });
}
template <DType T, int N>
__device__ __forceinline__ void norm_block(const NormParams& p) {
    block_row<3, compute_t<T>>(
        p, [&](const auto& r, const int64_t (&at)[3], int n) { norm_in_registers<T, N>(p, r, at, n); });
}
template <DType T, int N>
__device__ __forceinline__ void norm_block(const NormBackwardParams& p) {
    block_row<4, compute_t<T>>(
        p, [&](const auto& r, const int64_t (&at)[4], int n) { norm_backward_in_registers<T, N>(p, r, at, n); });
}

}  // namespace nk::cuda

#define NK_ROW(name, threads, blocks, Params, kernel, N) \
    NK_KERNELS(name, threads, blocks, nk::cuda::Params, nk::cuda::kernel<T, nk::cuda::values<T>(N)>(p))

NK_ROW(normalization_warp2, nk::cuda::kRowWarpThreads, 1, NormParams, norm_warp, 2)
NK_ROW(normalization_warp8, nk::cuda::kRowWarpThreads, 1, NormParams, norm_warp, 8)
NK_ROW(normalization_warp32, nk::cuda::kRowWarpThreads, 1, NormParams, norm_warp, 32)
NK_ROW(normalization_block16, 1024, 1, NormParams, norm_block, 16)
NK_ROW(normalization_long, nk::cuda::kRowLongThreads, 2, NormParams, norm_long, 16)

NK_ROW(normalization_backward_warp2, nk::cuda::kRowWarpThreads, 1, NormBackwardParams, norm_warp, 2)
NK_ROW(normalization_backward_warp8, nk::cuda::kRowWarpThreads, 1, NormBackwardParams, norm_warp, 8)
NK_ROW(normalization_backward_warp32, nk::cuda::kRowWarpThreads, 1, NormBackwardParams, norm_warp, 32)
NK_ROW(normalization_backward_block16, 1024, 1, NormBackwardParams, norm_block, 16)
NK_ROW(normalization_backward_long, nk::cuda::kRowLongThreads, 2, NormBackwardParams, norm_backward_long, 8)
