// h, g, x -> h*g*f''(x)
#include "tables.h"

namespace nk::NK_ISA {

namespace {

template <class Op, class T>
struct Backward2 {
    static constexpr int ins = 3, outs = 1;
    static constexpr bool direct = false;
    static void run(const cpu::Run& r) {
        using V = wide<compute_vec<T>, kNarrow>;
        const auto p = params<T>(r.p);
        walk<T, ins, outs, kNarrow>(r, [&](const V* in, V* out) __attribute__((always_inline)) {
            if constexpr (Op::flat_slope) {
                out[0] = math::num<V>(0);
            } else {
                out[0] = in[0] * in[1] * Op::template dd<V>(in[2], p);
            }
        });
    }
};

}  // namespace

void register_backward2(cpu::ActivationEntries& e) {
    fill<Backward2>(e.run[static_cast<int>(cpu::Pass::backward2)]);
    fill_from_output<Backward2>(e.run[static_cast<int>(cpu::Pass::backward2_from_output)]);
}

}  // namespace nk::NK_ISA
