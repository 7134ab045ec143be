// g, a, b -> g*b*f'(a), g*f(a)
#include "tables.h"

namespace nk::NK_ISA {

namespace {

template <class Op, class T>
struct GatedBackward {
    static constexpr int ins = 3, outs = 2;
    static constexpr bool direct = true;
    static void run(const cpu::Run& r) {
        using V = wide<compute_vec<T>, kNarrow>;
        const auto p = params<T>(r.p);
        walk<T, ins, outs, kNarrow>(r, [&](const V* in, V* out) __attribute__((always_inline)) {
            out[0] = Op::template vjp<V>(in[0] * in[2], in[1], p);
            out[1] = in[0] * Op::template f<V>(in[1], p);
        });
    }
};

}  // namespace

void register_gated_backward(cpu::ActivationEntries& e) {
    fill_gates<GatedBackward>(e.run[static_cast<int>(cpu::Pass::gated_backward)]);
}

}  // namespace nk::NK_ISA
