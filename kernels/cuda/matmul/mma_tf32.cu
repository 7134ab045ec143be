// The tensor-core kernels for f32 operands that are rounded to tf32 (10 bits of mantissa), for callers who allow it.
#include "mma.h"

namespace nk::cuda {

// Rows of k hold half as many elements as with 16 bits; the bytes, and so the traffic and the stages, are the same.
using Tf32Tile128x128 = MmaTile<128, 128, 64, 64, 32, 4, 1>;  // 64 KB, 8 warps: word loads ask for more lanes
using Tf32Tile64x64 = MmaTile<64, 64, 128, 32, 32, 3, 3>;     // 48 KB

}  // namespace nk::cuda

using namespace nk::cuda;

NK_MMA_KERNELS(tf32, f32, Tf32Tile128x128, 128x128)
NK_MMA_KERNELS(tf32, f32, Tf32Tile64x64, 64x64)
