// A small generator (splitmix64) for std::shuffle; <random> alone would take the compiler a third of a second a file.
#pragma once

#include <cstdint>

namespace emu {

struct Random {
    using result_type = uint64_t;
    uint64_t state = 0;

    static constexpr uint64_t min() { return 0; }
    static constexpr uint64_t max() { return ~uint64_t{0}; }
    uint64_t operator()() {
        uint64_t x = state += 0x9e3779b97f4a7c15u;
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
        x = (x ^ x >> 27) * 0x94d049bb133111ebu;
        return x ^ x >> 31;
    }
};

}  // namespace emu
