// The tensor-core kernels for f16.
#include "../product/mma_tiles.h"
#include "mma.h"

using namespace nk::cuda;

NK_MMA_KERNELS(f16, f16, Tile128x256, 128x256)
NK_MMA_KERNELS(f16, f16, Tile128x128, 128x128)
NK_MMA_KERNELS(f16, f16, Tile64x64, 64x64)
NK_MMA_KERNEL(f16, nn, f16, Tile16x128, true, false, 16x128)
NK_MMA_KERNEL(f16, nt, f16, Tile16x128, true, true, 16x128)
