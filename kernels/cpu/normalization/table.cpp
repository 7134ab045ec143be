// The normalization family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_normalization(cpu::NormalizationEntries& e) {
    register_norm_forward(e);
    register_norm_backward(e);
}

}  // namespace nk::NK_ISA
