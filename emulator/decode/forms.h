// The operands of asynchronous copies, which are too many for an Inst.
#pragma once

#include "code.h"

namespace emu {

// Combines `bytes` at `from` into `to`, element by element.
using Combine = void (*)(char* to, const char* from, uint32_t bytes);

struct AddressForm {
    Ref ref = kNoRef;
    int64_t offset = 0;
    bool wide = false;
};

struct AsyncForm {
    AddressForm to, from, barrier;  // `to` or `from` is a tensor map, in a tensor copy
    Ref size = kNoRef, mask = kNoRef;
    std::vector<Ref> values;   // of st.async; of a tensor copy, the coordinates
    std::vector<Ref> offsets;  // im2col
    uint32_t each = 0;         // bytes of a value
    Combine combine = nullptr;
    bool loads = false;       // from global memory
    bool remote = false;      // to shared::cluster
    bool prefetches = false;  // or it goes nowhere
    bool im2col = false;
    std::string reduction;  // of a tensor copy, whose map tells the type
};

}  // namespace emu
