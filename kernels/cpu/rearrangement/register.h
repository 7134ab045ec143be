// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "../elementwise/row.h"
#include "entries.h"

namespace nk::NK_ISA {

void register_interleave(cpu::RearrangementEntries& e);
void register_pad(cpu::RearrangementEntries& e);
void register_windows(cpu::RearrangementEntries& e);

}  // namespace nk::NK_ISA
