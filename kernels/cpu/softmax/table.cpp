// This family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_softmax([[maybe_unused]] cpu::SoftmaxEntries& e) {
#ifndef NK_ISA_avx512bf16
    register_rows(e);
    register_columns(e);
#endif
}

}  // namespace nk::NK_ISA
