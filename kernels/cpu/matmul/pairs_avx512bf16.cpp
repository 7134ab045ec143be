// bf16 products by pairs, which the processor multiplies. All other entries stay as AVX-512 has them.
#include "block.h"
#include "dot.h"
#include "register.h"

namespace nk::NK_ISA {

void register_matmul(cpu::MatmulEntries& e) {
    // Pairs can't be formed from an unpacked row-major b: `stream` stays the one that converts to f32.
    const auto stream = e.stream[static_cast<int>(DType::bf16)];
    set_entries<LanesPairs, bf16>(e, DType::bf16, "bf16_pairs");
    e.stream[static_cast<int>(DType::bf16)] = stream;
}

template Micro<LanesPairs> pick_micro<LanesPairs, uint32_t, bf16, LanesPairs::kMaxRows>(
    int, int);  // convolutions use it, too

}  // namespace nk::NK_ISA
