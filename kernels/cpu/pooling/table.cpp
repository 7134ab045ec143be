// This family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_pooling(cpu::PoolingEntries& e) {
    register_max(e);
    register_max_backward(e);
    register_average(e);
    register_average_backward(e);
}

}  // namespace nk::NK_ISA
