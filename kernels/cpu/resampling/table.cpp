// This family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_resampling(cpu::ResamplingEntries& e) { register_gather(e); }

}  // namespace nk::NK_ISA
