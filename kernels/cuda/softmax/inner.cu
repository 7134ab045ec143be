// softmax, log_softmax and softmin along a dim that is not the innermost, with their gradients; the kind is an
// argument.
#include "inner.h"

#include "../tile/kernel.h"

#define NK_INNER(name, suffix, W, R) \
    NK_KERNELS(name##_##suffix, nk::cuda::kSoftmaxInnerThreads, 2, nk::cuda::SoftmaxParams, nk::cuda::name<T, W, R>(p))

NK_INNER(softmax_inner, unit, nk::cuda::kUnit<T>, 4)
NK_INNER(softmax_inner, element, 1, 8)
NK_INNER(softmax_backward_inner, unit, nk::cuda::kUnit<T>, 2)
NK_INNER(softmax_backward_inner, element, 1, 8)
