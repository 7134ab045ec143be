// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "entries.h"

namespace nk::NK_ISA {

void register_depthwise(cpu::DepthwiseEntries& e);
void register_depthwise_last(cpu::DepthwiseEntries& e);
void register_depthwise_last_weight(cpu::DepthwiseEntries& e);
void register_depthwise_weight(cpu::DepthwiseEntries& e);

}  // namespace nk::NK_ISA
