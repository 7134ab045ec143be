// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "../elementwise/row.h"
#include "entries.h"

namespace nk::NK_ISA {

void register_norm_forward(cpu::NormalizationEntries& e);
void register_norm_backward(cpu::NormalizationEntries& e);

}  // namespace nk::NK_ISA
