// Attention of bf16 by pairs, which the processor multiplies. All other entries stay as AVX-512 has them.
#include "register_tiles.h"

namespace nk::NK_ISA {

void register_attention(cpu::AttentionEntries& e) { set_tiles<LanesPairs, bf16>(e, DType::bf16, "bf16_pairs"); }

}  // namespace nk::NK_ISA
