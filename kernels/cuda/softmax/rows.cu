// softmax, log_softmax and softmin of rows, with their gradients; the kind is an argument. Which kernel serves which
// row length is decided in csrc/softmax/plan_cuda.h; the number in a name is how many values each thread keeps in
// registers.
#include "rows.h"

#include "../tile/kernel.h"

#define NK_WARP(name, N, Backward)                                          \
    NK_KERNELS(name, nk::cuda::kRowWarpThreads, 1, nk::cuda::SoftmaxParams, \
               nk::cuda::softmax_warp<T, nk::cuda::values<T>(N), Backward>(p))
#define NK_BLOCK(name, N, Backward) \
    NK_KERNELS(name, 1024, 1, nk::cuda::SoftmaxParams, nk::cuda::softmax_block<T, nk::cuda::values<T>(N), Backward>(p))
#define NK_LONG(name)                                                       \
    NK_KERNELS(name, nk::cuda::kRowLongThreads, 2, nk::cuda::SoftmaxParams, \
               nk::cuda::name<T, nk::cuda::values<T>(16)>(p))

NK_WARP(softmax_warp2, 2, false)
NK_WARP(softmax_warp8, 8, false)
NK_WARP(softmax_warp32, 32, false)
NK_BLOCK(softmax_block16, 16, false)
NK_BLOCK(softmax_block32, 32, false)
NK_LONG(softmax_long)

NK_WARP(softmax_backward_warp2, 2, true)
NK_WARP(softmax_backward_warp8, 8, true)
NK_WARP(softmax_backward_warp32, 32, true)
NK_BLOCK(softmax_backward_block16, 16, true)
NK_LONG(softmax_backward_long)
