// g, x -> g*f'(x)
#include "tables.h"

// AVX-512-BF16 adds nothing here: its conversion flushes denormals. The level keeps AVX-512's entries.
#ifndef NK_ISA_avx512bf16

namespace nk::NK_ISA {

namespace {

template <class Op, class T>
struct Backward {
    static constexpr int ins = 2, outs = 1;
    static constexpr bool direct = true;
    static void run(const cpu::Run& r) {
        if constexpr (math::told_by_output<Op>)
            if (r.p[0] != 0) return Backward<typename Op::OfOutput, T>::run(r);
        using V = wide<number<T, Op::exact_slope>, width<T>>;
        const auto p = params<T>(r.p);
        walk<T, ins, outs, width<T>, true, Op::exact_slope>(r, [&](const V* in, V* out) __attribute__((always_inline)) {
            out[0] = Op::template vjp<V>(in[0], in[1], p);
        });
    }
};

}  // namespace

void register_backward(cpu::ActivationEntries& e) { fill<Backward>(e.run[static_cast<int>(cpu::Pass::backward)]); }

}  // namespace nk::NK_ISA

#endif
