#include "mma_split.h"
#include "tiles.h"

#define NK_SPLIT_KERNEL(d, rows, warps, keys)                                                        \
    extern "C" __global__ void __launch_bounds__(rows* warps * 32, 1)                                \
        attention_split_f16_##d##_##rows(const __grid_constant__ nk::cuda::AttentionSplitParams p) { \
        nk::cuda::mma_attention_split<nk::DType::f16, d, rows, warps, keys>(p);                      \
    }
NK_ATTENTION_SPLIT_TILES(NK_SPLIT_KERNEL)
