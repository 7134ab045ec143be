// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "entries.h"

namespace nk::NK_ISA {

void register_transpose(cpu::ElementwiseEntries& e);
void register_round(cpu::ElementwiseEntries& e);
void register_uniform(cpu::ElementwiseEntries& e);

}  // namespace nk::NK_ISA
