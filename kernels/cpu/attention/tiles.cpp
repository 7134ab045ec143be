// Attention by tiles: 16-bit operands are converted to f32.
#include "register_tiles.h"

namespace nk::NK_ISA {

void register_attention_tiles(cpu::AttentionEntries& e) {
    set_tiles<LanesF32, float>(e, DType::f32, "f32");
    set_tiles<LanesF64, double>(e, DType::f64, "f64");
    set_tiles<LanesF32, f16>(e, DType::f16, "f16_as_f32");
    set_tiles<LanesF32, bf16>(e, DType::bf16, "bf16_as_f32");
}

}  // namespace nk::NK_ISA
