// f32 products, and f16 ones, which are converted to f32 on their way in.
#include "block.h"
#include "dot.h"
#include "register.h"

namespace nk::NK_ISA {

void register_f32(cpu::MatmulEntries& e) {
    set_entries<LanesF32, float>(e, DType::f32, "f32");
    set_entries<LanesF32, f16>(e, DType::f16, "f16_as_f32");
}

template Micro<LanesF32> pick_micro<LanesF32, float, float, LanesF32::kMaxRows>(int, int);  // convolutions use it, too

}  // namespace nk::NK_ISA
