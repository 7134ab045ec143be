// The two 16-bit formats as storage: bits only, so that no conversion code is shared between instruction sets.
#pragma once

#include <cstdint>

namespace nk {

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};

}  // namespace nk
