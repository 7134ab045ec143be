// This family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_elementwise([[maybe_unused]] cpu::ElementwiseEntries& e) {
#ifndef NK_ISA_avx512bf16
    register_transpose(e);
    register_round(e);
#endif
}

}  // namespace nk::NK_ISA
