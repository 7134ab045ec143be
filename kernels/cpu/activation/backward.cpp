// g, x -> g*f'(x)
#include "tables.h"

namespace nk::NK_ISA {

namespace {

template <class Op, class T>
struct Backward {
    static constexpr int ins = 2, outs = 1;
    static constexpr bool direct = true;
    static void run(const cpu::Run& r) {
        using V = wide<number<T, Op::exact_slope>, width<T>>;
        const auto p = params<T>(r.p);
        walk<T, ins, outs, width<T>, true, Op::exact_slope>(r, [&](const V* in, V* out) __attribute__((always_inline)) {
            out[0] = Op::template vjp<V>(in[0], in[1], p);
        });
    }
};

}  // namespace

void register_backward(cpu::ActivationEntries& e) {
    fill<Backward>(e.run[static_cast<int>(cpu::Pass::backward)]);
    fill_from_output<Backward>(e.run[static_cast<int>(cpu::Pass::backward_from_output)]);
}

}  // namespace nk::NK_ISA
