// Generic addresses: the host's own are global memory; the other spaces have windows where no host pointer can be.
#pragma once

#include <cstdint>

namespace emu {

inline constexpr uint64_t kWindowBits = uint64_t{0xf} << 60;
inline constexpr uint64_t kSharedWindow = uint64_t{1} << 60;
inline constexpr uint64_t kLocalWindow = uint64_t{2} << 60;
inline constexpr uint64_t kParamWindow = uint64_t{3} << 60;
inline constexpr uint64_t kConstWindow = uint64_t{4} << 60;
// Functions have addresses, but no memory.
inline constexpr uint64_t kCodeWindow = uint64_t{5} << 60, kCodeStep = 16;

}  // namespace emu
