// This family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_softmax(cpu::SoftmaxEntries& e) {
    register_rows(e);
    register_columns(e);
}

}  // namespace nk::NK_ISA
