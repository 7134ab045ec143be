// bf16 products, converted to f32.
#include "block.h"
#include "dot.h"
#include "register.h"

namespace nk::NK_ISA {

void register_bf16(cpu::MatmulEntries& e) { set_entries<LanesF32, bf16>(e, DType::bf16, "bf16_as_f32"); }

template Micro<LanesF32> pick_micro<LanesF32, float, bf16, LanesF32::kMaxRows>(int, int);  // convolutions use it, too

}  // namespace nk::NK_ISA
