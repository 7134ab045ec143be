// This family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_resampling(cpu::ResamplingEntries& e) {
    register_gather(e);
    register_grid_sample(e);
}

}  // namespace nk::NK_ISA
