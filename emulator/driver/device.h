// What the emulated device says of itself, the options of its checkers, and the record of launches.
#pragma once

#include <cstdint>

#include "../exec/block.h"

namespace emu {

inline constexpr int kSharedPerBlockOptin = 97;

bool device_attribute(int attribute, int& value);
Options options();
void record(const Launch& l);

}  // namespace emu
