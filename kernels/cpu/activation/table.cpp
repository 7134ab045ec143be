// The activation family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_activation(cpu::ActivationEntries& e) {
    register_forward(e);
    register_backward(e);
    register_bits(e);
    register_backward2(e);
    register_gated(e);
    register_gated_backward(e);
    register_prelu(e);
}

}  // namespace nk::NK_ISA
