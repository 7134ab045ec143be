// bf16 products: by pairs where the processor multiplies them, converted to f32 elsewhere.
#include "block.h"
#include "dot.h"
#include "register.h"

namespace nk::NK_ISA {

void register_bf16(cpu::MatmulEntries& e) {
#if defined(NK_ISA_avx512bf16)
    // Pairs can't be formed from an unpacked row-major b: `stream` stays the one that converts to f32.
    const auto stream = e.stream[static_cast<int>(DType::bf16)];
    set_entries<LanesPairs, BF16>(e, DType::bf16, "bf16_pairs");
    e.stream[static_cast<int>(DType::bf16)] = stream;
#else
    set_entries<LanesF32, BF16>(e, DType::bf16, "bf16_as_f32");
#endif
}

}  // namespace nk::NK_ISA
