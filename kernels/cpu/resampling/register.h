// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "entries.h"

namespace nk::NK_ISA {

void register_gather(cpu::ResamplingEntries& e);
void register_grid_sample(cpu::ResamplingEntries& e);

}  // namespace nk::NK_ISA
