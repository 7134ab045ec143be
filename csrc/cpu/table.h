// The CPU kernels in force: scalar first, then overridden by each instruction set that the machine has.
#pragma once

#include "cpuid.h"

#if __has_include("../../kernels/cpu/matmul/entries.h")
#include "../../kernels/cpu/matmul/entries.h"
#define NK_HAVE_CPU_MATMUL 1
#endif
#if __has_include("../../kernels/cpu/activation/entries.h")
#include "../../kernels/cpu/activation/entries.h"
#define NK_HAVE_CPU_ACTIVATION 1
#endif

#include "../../kernels/cpu/normalization/entries.h"

namespace nk::cpu {

struct Table {
    Level level;
#ifdef NK_HAVE_CPU_MATMUL
    MatmulEntries matmul;
#endif
#ifdef NK_HAVE_CPU_ACTIVATION
    ActivationEntries activation;
#endif
    NormalizationEntries normalization;
};

// The table in force; the first call reads NEUROKERN_CPU_LEVEL and throws when it names no level of this machine.
const Table& table();

// Replaces the table in force; throws std::invalid_argument when the machine lacks the level.
void set_level(const char* name);

}  // namespace nk::cpu
