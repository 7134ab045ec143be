// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "entries.h"

namespace nk::NK_ISA {

void register_max(cpu::PoolingEntries& e);
void register_max_backward(cpu::PoolingEntries& e);
void register_average(cpu::PoolingEntries& e);
void register_average_backward(cpu::PoolingEntries& e);

}  // namespace nk::NK_ISA
