// The tiles of the tensor-core kernels. Registers: 64 x 64 per warp are 128 accumulators and 64 of fragments.
#pragma once

#include "mma.h"

namespace nk::cuda {

using Tile128x256 = MmaTile<128, 256, 128, 64, 64, 3, 1>;  // 144 KB: the largest for which 163 KB (sm_80) hold 3 stages
using Tile128x128 = MmaTile<128, 128, 64, 64, 64, 4, 2>;   // 64 KB: two blocks hide each other's barriers
using Tile64x64 = MmaTile<64, 64, 128, 32, 32, 3, 4>;      // 48 KB: small outputs need many blocks
using Tile16x128 = MmaTile<16, 128, 128, 16, 32, 4, 3>;    // 72 KB: few rows, B streams through

// tf32. Rows of k hold half as many elements as with 16 bits; the bytes, and so the traffic and the stages, are the
// same.
using Tf32Tile128x128 = MmaTile<128, 128, 64, 64, 32, 4, 1>;  // 64 KB, 8 warps: word loads ask for more lanes
using Tf32Tile64x64 = MmaTile<64, 64, 128, 32, 32, 3, 3>;     // 48 KB

}  // namespace nk::cuda
