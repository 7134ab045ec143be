// This family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_elementwise(cpu::ElementwiseEntries& e) {
    register_transpose(e);
    register_round(e);
    register_uniform(e);
}

}  // namespace nk::NK_ISA
