// Fills the matmul entries of one instruction set.
#include "entries.h"

namespace nk::NK_ISA {

void register_f32(cpu::MatmulEntries& e);
void register_f64(cpu::MatmulEntries& e);
void register_bf16(cpu::MatmulEntries& e);
void register_activate(cpu::MatmulEntries& e);

void register_matmul(cpu::MatmulEntries& e) {
    register_f32(e);
    register_f64(e);
    register_bf16(e);
    register_activate(e);
}

}  // namespace nk::NK_ISA
