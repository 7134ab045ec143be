// softmax, log_softmax and softmin with their gradients; the kind is an argument. Which kernel serves which row length
// is decided in csrc/plan/softmax.h; the number in a name is how many values each thread keeps in registers.
#include "kernel.h"
#include "softmax_inner.h"
#include "softmax_rows.h"

#define NK_WARP(name, N, Backward)                                          \
    NK_KERNELS(name, nk::cuda::kRowWarpThreads, 1, nk::cuda::SoftmaxParams, \
               nk::cuda::softmax_warp<T, nk::cuda::values<T>(N), Backward>(p))
#define NK_BLOCK(name, N, Backward) \
    NK_KERNELS(name, 1024, 1, nk::cuda::SoftmaxParams, nk::cuda::softmax_block<T, nk::cuda::values<T>(N), Backward>(p))
#define NK_LONG(name)                                                                    \
    NK_KERNELS(activation_##name, nk::cuda::kRowLongThreads, 2, nk::cuda::SoftmaxParams, \
               nk::cuda::name<T, nk::cuda::values<T>(16)>(p))
#define NK_INNER(name, suffix, W, R)                                                                     \
    NK_KERNELS(activation_##name##_##suffix, nk::cuda::kSoftmaxInnerThreads, 2, nk::cuda::SoftmaxParams, \
               nk::cuda::name<T, W, R>(p))

NK_WARP(activation_softmax_warp2, 2, false)
NK_WARP(activation_softmax_warp8, 8, false)
NK_WARP(activation_softmax_warp32, 32, false)
NK_BLOCK(activation_softmax_block16, 16, false)
NK_BLOCK(activation_softmax_block32, 32, false)
NK_LONG(softmax_long)
NK_INNER(softmax_inner, unit, nk::cuda::kUnit<T>, 4)
NK_INNER(softmax_inner, element, 1, 8)

NK_WARP(activation_softmax_backward_warp2, 2, true)
NK_WARP(activation_softmax_backward_warp8, 8, true)
NK_WARP(activation_softmax_backward_warp32, 32, true)
NK_BLOCK(activation_softmax_backward_block16, 16, true)
NK_LONG(softmax_backward_long)
NK_INNER(softmax_backward_inner, unit, nk::cuda::kUnit<T>, 2)
NK_INNER(softmax_backward_inner, element, 1, 8)
