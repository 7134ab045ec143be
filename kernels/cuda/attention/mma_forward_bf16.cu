#include "mma_forward.h"
#include "tiles.h"

#define NK_FORWARD_KERNEL(d, queries, keys, ms)                                         \
    extern "C" __global__ void __launch_bounds__(queries / (16 * ms) * 32)              \
        attention_mma_bf16##_##d(const __grid_constant__ nk::cuda::AttentionParams p) { \
        nk::cuda::mma_attention<nk::DType::bf16, d, queries, keys, ms>(p);              \
    }
NK_ATTENTION_FORWARD_TILES(NK_FORWARD_KERNEL)
