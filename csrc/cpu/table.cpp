#include "cpu/table.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

// Every instruction set compiles the same sources inside its own namespace.
#define NK_DECLARE_FAMILY(family, Entries) void register_##family(cpu::Entries&);
#define NK_DECLARE(isa)                \
    namespace nk::isa {                \
    NK_CPU_FAMILIES(NK_DECLARE_FAMILY) \
    }
NK_DECLARE(scalar)
NK_DECLARE(avx2)
NK_DECLARE(avx512)
#undef NK_DECLARE
namespace nk::avx512bf16 {
NK_CPU_BF16_FAMILIES(NK_DECLARE_FAMILY)
}
#undef NK_DECLARE_FAMILY

namespace nk::cpu {

namespace {

Table build(Level level) {
    Table t{};
    t.level = level;
#define NK_REGISTER(family, Entries)                             \
    scalar::register_##family(t.family);                         \
    if (level >= Level::avx2) avx2::register_##family(t.family); \
    if (level >= Level::avx512) avx512::register_##family(t.family);
    NK_CPU_FAMILIES(NK_REGISTER)
#undef NK_REGISTER
#define NK_REGISTER(family, Entries) \
    if (level >= Level::avx512bf16) avx512bf16::register_##family(t.family);
    NK_CPU_BF16_FAMILIES(NK_REGISTER)
#undef NK_REGISTER
    return t;
}

Level checked(const char* name, const char* source) {
    Level level;
    if (!parse_level(name, level))
        throw std::invalid_argument(std::string(source) + " is '" + name +
                                    "', expected scalar, avx2, avx512 or avx512bf16");
    if (level > detect())
        throw std::invalid_argument(std::string(source) + " is '" + name + "', but this machine has only " +
                                    name_of(detect()));
    return level;
}

Table& current() {
    static Table t = [] {
        const char* name = std::getenv("NEUROKERN_CPU_LEVEL");
        return build(name != nullptr && *name ? checked(name, "NEUROKERN_CPU_LEVEL") : detect());
    }();
    return t;
}

}  // namespace

const Table& table() { return current(); }

void set_level(const char* name) { current() = build(checked(name, "CPU level")); }

}  // namespace nk::cpu
