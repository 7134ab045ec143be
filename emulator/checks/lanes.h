// Lanes of one store that write different values to one place: which of them lasts is not defined.
#pragma once

#include <cstdint>
#include <utility>

namespace emu {

inline constexpr uint32_t kMostStored = 32;  // bytes of one lane
using Values = const char (*)[kMostStored];  // what each lane stores

// Two lanes of the mask that differ about a byte, or {-1, -1}.
std::pair<int, int> contradiction(uint32_t mask, const uint64_t* address, uint32_t bytes, Values values);

}  // namespace emu
