// The normalization family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_normalization([[maybe_unused]] cpu::NormalizationEntries& e) {
#ifndef NK_ISA_avx512bf16
    register_norm_forward(e);
    register_norm_backward(e);
#endif
}

}  // namespace nk::NK_ISA
