// Which instruction sets this processor has and the operating system lets us use.
#pragma once

#include <cstdint>

namespace nk::cpu {

enum class Level : int { scalar = 0, avx2 = 1, avx512 = 2, avx512bf16 = 3 };
inline constexpr int kLevels = 4;

const char* name_of(Level level);
bool parse_level(const char* name, Level& out);
Level detect();              // highest level of this machine, cached
int64_t last_level_cache();  // bytes of the largest cache; 32 MiB where the processor does not say
const char* model_name();    // the processor's brand string, cached

}  // namespace nk::cpu
