// a, b -> f(a)*b
#include "tables.h"

namespace nk::NK_ISA {

namespace {

template <class Op, class T>
struct Gated {
    static constexpr int ins = 2, outs = 1;
    static constexpr bool direct = true;
    static void run(const cpu::Run& r) {
        using V = wide<compute_vec<T>, kNarrow>;
        const auto p = params<T>(r.p);
        walk<T, ins, outs, kNarrow>(r, [&](const V* in, V* out) __attribute__((always_inline)) {
            out[0] = Op::template f<V>(in[0], p) * in[1];
        });
    }
};

}  // namespace

void register_gated(cpu::ActivationEntries& e) { fill_gates<Gated>(e.run[static_cast<int>(cpu::Pass::gated)]); }

}  // namespace nk::NK_ISA
