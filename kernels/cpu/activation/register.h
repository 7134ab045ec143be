// The parts that make up this instruction set's table, one for each source file.
#pragma once

#include "entries.h"

namespace nk::NK_ISA {

void register_forward(cpu::ActivationEntries& e);
void register_backward(cpu::ActivationEntries& e);
void register_bits(cpu::ActivationEntries& e);
void register_backward2(cpu::ActivationEntries& e);
void register_gated(cpu::ActivationEntries& e);
void register_gated_backward(cpu::ActivationEntries& e);
void register_prelu(cpu::ActivationEntries& e);

}  // namespace nk::NK_ISA
