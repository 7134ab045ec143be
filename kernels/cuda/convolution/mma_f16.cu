// The products of f16 on the tensor cores.
#include "../product/mma_tiles.h"
#include "mma.h"

using namespace nk::cuda;

NK_CONVOLUTION_KERNELS(f16, f16, Tile128x128, 128x128)
NK_CONVOLUTION_KERNELS(f16, f16, Tile64x64, 64x64)
NK_CONVOLUTION_MAPPED(f16, f16, Tile64x64, 64x64)
