// This family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_rearrangement(cpu::RearrangementEntries& e) {
    register_interleave(e);
    register_pad(e);
    register_windows(e);
}

}  // namespace nk::NK_ISA
