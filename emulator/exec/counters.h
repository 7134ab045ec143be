// What a launch did, counted exactly: the same launch always gives the same numbers.
#pragma once

#include <cstdint>

#include "../decode/code.h"

namespace emu {

struct Counters {
    uint64_t instructions[static_cast<int>(Class::count)] = {};    // of warps, by class
    uint64_t global_bytes_read = 0, global_bytes_written = 0;      // asked for by lanes
    uint64_t global_sectors_read = 0, global_sectors_written = 0;  // 32-byte sectors, counted for each instruction
    uint64_t shared_bytes = 0, bank_conflicts = 0;                 // wavefronts beyond the least
    uint64_t async_bytes = 0;
    uint64_t barriers = 0;  // completed, of blocks

    void add(const Counters& o) {
        const auto* from = reinterpret_cast<const uint64_t*>(&o);
        auto* to = reinterpret_cast<uint64_t*>(this);
        for (size_t k = 0; k < sizeof(Counters) / sizeof(uint64_t); ++k) to[k] += from[k];
    }
};

}  // namespace emu
