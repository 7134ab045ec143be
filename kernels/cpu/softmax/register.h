// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "entries.h"

namespace nk::NK_ISA {

void register_rows(cpu::SoftmaxEntries& e);
void register_columns(cpu::SoftmaxEntries& e);

}  // namespace nk::NK_ISA
