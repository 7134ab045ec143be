// a, b -> f(a)*b
#include "tables.h"

// AVX-512-BF16 adds nothing here: its conversion flushes denormals. The level keeps AVX-512's entries.
#ifndef NK_ISA_avx512bf16

namespace nk::NK_ISA {

namespace {

template <class Op, class T>
struct Gated {
    static constexpr int ins = 2, outs = 1;
    static constexpr bool direct = common_gate<Op>;
    static void run(const cpu::Run& r) {
        using V = wide<compute_vec<T>, kNarrow>;
        const auto p = params<T>(r.p);
        walk<T, ins, outs, kNarrow>(r, [&](const V* in, V* out) __attribute__((always_inline)) {
            out[0] = Op::template f<V>(in[0], p) * in[1];
        });
    }
};

}  // namespace

void register_gated(cpu::ActivationEntries& e) { fill<Gated>(e.run[static_cast<int>(cpu::Pass::gated)]); }

}  // namespace nk::NK_ISA

#endif
