#include "table.h"

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

// Every instruction set compiles the same sources inside its own namespace.
#ifdef NK_HAVE_CPU_MATMUL
#define NK_DECLARE_MATMUL void register_matmul(cpu::MatmulEntries&);
#else
#define NK_DECLARE_MATMUL
#endif
#ifdef NK_HAVE_CPU_ACTIVATION
#define NK_DECLARE_ACTIVATION void register_activation(cpu::ActivationEntries&);
#else
#define NK_DECLARE_ACTIVATION
#endif
#define NK_DECLARE(isa)                                      \
    namespace nk::isa {                                      \
    NK_DECLARE_MATMUL                                        \
    NK_DECLARE_ACTIVATION                                    \
    void register_normalization(cpu::NormalizationEntries&); \
    }
NK_DECLARE(scalar)
NK_DECLARE(avx2)
NK_DECLARE(avx512)
NK_DECLARE(avx512bf16)

namespace nk::cpu {

namespace {

Table build(Level level) {
    Table t{};
    t.level = level;
#ifdef NK_HAVE_CPU_MATMUL
    scalar::register_matmul(t.matmul);
    if (level >= Level::avx2) avx2::register_matmul(t.matmul);
    if (level >= Level::avx512) avx512::register_matmul(t.matmul);
    if (level >= Level::avx512bf16) avx512bf16::register_matmul(t.matmul);
#endif
#ifdef NK_HAVE_CPU_ACTIVATION
    scalar::register_activation(t.activation);
    if (level >= Level::avx2) avx2::register_activation(t.activation);
    if (level >= Level::avx512) avx512::register_activation(t.activation);
    if (level >= Level::avx512bf16) avx512bf16::register_activation(t.activation);
#endif
    scalar::register_normalization(t.normalization);
    if (level >= Level::avx2) avx2::register_normalization(t.normalization);
    if (level >= Level::avx512) avx512::register_normalization(t.normalization);
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
