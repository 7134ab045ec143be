// The products of f32 that may be rounded to tf32 on the tensor cores.
#include "../product/mma_tiles.h"
#include "mma.h"

using namespace nk::cuda;

NK_CONVOLUTION_KERNELS(tf32, f32, Tf32Tile128x128, 128x128)
NK_CONVOLUTION_KERNELS(tf32, f32, Tf32Tile64x64, 64x64)
NK_CONVOLUTION_MAPPED(tf32, f32, Tf32Tile64x64, 64x64)
