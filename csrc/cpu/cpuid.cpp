#include "cpu/cpuid.h"

#include <cpuid.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

namespace nk::cpu {

namespace {

constexpr const char* kNames[kLevels] = {"scalar", "avx2", "avx512", "avx512bf16"};

// The registers that the operating system saves; without it the instructions fault.
__attribute__((target("xsave"))) uint64_t saved_state() { return __builtin_ia32_xgetbv(0); }

Level read() {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return Level::scalar;
    constexpr uint32_t needed1 = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C;
    if ((c & needed1) != needed1 || (saved_state() & 0x6) != 0x6) return Level::scalar;
    uint32_t b7, c7, d7;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !(b7 & bit_AVX2)) return Level::scalar;
    constexpr uint32_t needed7 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL | bit_AVX512CD;
    if ((b7 & needed7) != needed7 || (saved_state() & 0xe6) != 0xe6) return Level::avx2;
    constexpr uint32_t avx512bf16 = 1u << 5;  // leaf 7, subleaf 1, EAX
    const bool vnni = c7 & bit_AVX512VNNI, vbmi = c7 & bit_AVX512VBMI;
    if (!vnni || !vbmi || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & avx512bf16)) return Level::avx512;
    return Level::avx512bf16;
}

// Leaf 4 of Intel's processors and 0x8000001d of AMD's describe one cache each subleaf, in the same words.
int64_t largest_cache(uint32_t leaf) {
    int64_t largest = 0;
    uint32_t a, b, c, d;
    for (uint32_t i = 0; i < 16 && __get_cpuid_count(leaf, i, &a, &b, &c, &d) && (a & 31) != 0; ++i) {
        const int64_t line = (b & 0xfff) + 1, partitions = (b >> 12 & 0x3ff) + 1, ways = (b >> 22) + 1;
        largest = std::max(largest, line * partitions * ways * (int64_t{c} + 1));
    }
    return largest;
}

}  // namespace

int64_t last_level_cache() {
    static const int64_t bytes = [] {
        const int64_t found = std::max(largest_cache(4), largest_cache(0x8000001d));
        return found > 0 ? found : int64_t{32} << 20;
    }();
    return bytes;
}

const char* name_of(Level level) { return kNames[static_cast<int>(level)]; }

bool parse_level(const char* name, Level& out) {
    for (int i = 0; i < kLevels; ++i)
        if (std::strcmp(name, kNames[i]) == 0) {
            out = static_cast<Level>(i);
            return true;
        }
    return false;
}

Level detect() {
    static const Level level = read();
    return level;
}

const char* model_name() {
    static const std::string name = [] {
        uint32_t words[12] = {};
        for (uint32_t i = 0; i < 3; ++i)
            __get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
        char text[49] = {};
        std::memcpy(text, words, 48);
        return std::string(text);
    }();
    return name.c_str();
}

}  // namespace nk::cpu
