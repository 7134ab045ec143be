// The attention family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_attention(cpu::AttentionEntries& e) {
    register_attention_row_by_row(e);
    register_attention_tiles(e);
}

}  // namespace nk::NK_ISA
