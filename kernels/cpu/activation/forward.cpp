// x -> f(x)
#include "tables.h"

namespace nk::NK_ISA {

namespace {

template <class Op, class T>
struct Forward {
    static constexpr int ins = 1, outs = 1;
    static constexpr bool direct = true;
    static void run(const cpu::Run& r) {
        using V = wide<number<T, Op::exact>, width<T>>;
        const auto p = forward_params<Op, T>(r.p);
        walk<T, ins, outs, width<T>, true, Op::exact>(
            r, [&](const V* in, V* out) __attribute__((always_inline)) { out[0] = Op::template f<V>(in[0], p); });
    }
};

}  // namespace

void register_forward(cpu::ActivationEntries& e) { fill<Forward>(e.run[static_cast<int>(cpu::Pass::forward)]); }

}  // namespace nk::NK_ISA
