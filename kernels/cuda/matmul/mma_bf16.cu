// The tensor-core kernels for bf16.
#include "../product/mma_tiles.h"
#include "mma.h"

using namespace nk::cuda;

NK_MMA_KERNELS(bf16, bf16, Tile128x256, 128x256)
NK_MMA_KERNELS(bf16, bf16, Tile128x128, 128x128)
NK_MMA_KERNELS(bf16, bf16, Tile64x64, 64x64)
NK_MMA_KERNEL(bf16, nn, bf16, Tile16x128, true, false, 16x128)
NK_MMA_KERNEL(bf16, nt, bf16, Tile16x128, true, true, 16x128)
