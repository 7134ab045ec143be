// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "entries.h"

namespace nk::NK_ISA {

void register_attention_row_by_row(cpu::AttentionEntries& e);
void register_attention_tiles(cpu::AttentionEntries& e);

}  // namespace nk::NK_ISA
