#include "mma_backward.h"
#include "tiles.h"

#define NK_BACKWARD_KERNEL(d, rows, tile, split)                                                               \
    extern "C" __global__ void __launch_bounds__(rows / 16 * split * 32)                                       \
        attention_mma_backward_query_bf16##_##d(const __grid_constant__ nk::cuda::AttentionBackwardParams p) { \
        nk::cuda::mma_attention_backward<nk::DType::bf16, d, rows, tile, split, false>(p);                     \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(rows / 16 * split * 32)                                       \
        attention_mma_backward_key_bf16##_##d(const __grid_constant__ nk::cuda::AttentionBackwardParams p) {   \
        nk::cuda::mma_attention_backward<nk::DType::bf16, d, rows, tile, split, true>(p);                      \
    }
NK_ATTENTION_BACKWARD_TILES(NK_BACKWARD_KERNEL)
