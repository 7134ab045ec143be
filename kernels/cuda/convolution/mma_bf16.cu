// The products of bf16 on the tensor cores.
#include "../product/mma_tiles.h"
#include "mma.h"

using namespace nk::cuda;

NK_CONVOLUTION_KERNELS(bf16, bf16, Tile128x128, 128x128)
NK_CONVOLUTION_KERNELS(bf16, bf16, Tile64x64, 64x64)
NK_CONVOLUTION_MAPPED(bf16, bf16, Tile64x64, 64x64)
