// The tensor-core kernels for f32 operands that are rounded to tf32 (10 bits of mantissa), for callers who allow it.
#include "../product/mma_tiles.h"
#include "mma.h"

using namespace nk::cuda;

NK_MMA_KERNELS(tf32, f32, Tf32Tile128x128, 128x128)
NK_MMA_KERNELS(tf32, f32, Tf32Tile64x64, 64x64)
