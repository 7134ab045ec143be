// x -> f(x) and a bit for each element; g, bits -> g*f'(x): what a derivative of two values needs of x.
#include "tables.h"

namespace nk::NK_ISA {

namespace {

// A step fills whole bytes.
template <class T>
inline constexpr int byte_width = width<T> * lanes_for<T> < 8 ? 8 / lanes_for<T> : width<T>;

template <class Op, class T>
struct Keeping {
    static constexpr int ins = 1, outs = 1;
    static constexpr bool direct = true;
    static void run(const cpu::Run& r) {
        using V = wide<number<T, Op::exact>, byte_width<T>>;
        const auto p = params<T>(r.p), q = forward_params<Op, T>(r.p);
        unsigned char* bits = r.bits;
        walk<T, ins, outs, byte_width<T>, false, Op::exact>(r, [&](const V* in, V* out) __attribute__((always_inline)) {
            const uint64_t packed = pack(Op::template bit<V>(in[0], p));
            memcpy(bits, &packed, V::lanes / 8);
            bits += V::lanes / 8;
            out[0] = Op::template f<V>(in[0], q);
        });
    }
};

template <class Op, class T>
struct Kept {
    static constexpr int ins = 1, outs = 1;
    static constexpr bool direct = true;
    static void run(const cpu::Run& r) {
        using V = wide<number<T, Op::exact_slope>, byte_width<T>>;
        const auto p = params<T>(r.p);
        const unsigned char* bits = r.bits;
        walk<T, ins, outs, byte_width<T>, false, Op::exact_slope>(
            r, [&](const V* in, V* out) __attribute__((always_inline)) {
                uint64_t packed = 0;
                memcpy(&packed, bits, V::lanes / 8);
                bits += V::lanes / 8;
                decltype(in[0] <= in[0]) bit;
                unpack(packed, bit);
                out[0] = Op::template pick<V>(bit, in[0], p);
            });
    }
};

}  // namespace

void register_bits(cpu::ActivationEntries& e) {
    for (int a = 0; a < kActivations; ++a)
        math::visit_activation(static_cast<Activation>(a), [&](auto op) {
            using Op = decltype(op);
            if constexpr (math::two_slopes<Op>) {
                fill_row<Keeping, Op>(e.keeping[a]);
                fill_row<Kept, Op>(e.kept[a]);
            }
        });
}

}  // namespace nk::NK_ISA
