// The CPU kernels in force: scalar first, then overridden by each instruction set that the machine has.
#pragma once

#include "cpu/cpuid.h"
#include "cpu_families.h"  // made by cmake/folders.cmake: NK_CPU_FAMILIES(X), X(family, its type of entries)

namespace nk::cpu {

struct Table {
    Level level;
#define NK_MEMBER(family, Entries) Entries family;
    NK_CPU_FAMILIES(NK_MEMBER)
#undef NK_MEMBER
};

// The table in force; the first call reads NEUROKERN_CPU_LEVEL and throws when it names no level of this machine.
const Table& table();

// Replaces the table in force; throws std::invalid_argument when the machine lacks the level.
void set_level(const char* name);

}  // namespace nk::cpu
