// The loop over a run, and how a family of kernels fills its table.
//
// A run is walked in steps of `Unroll` vectors, the rest in single masked vectors. Cheap functions are unrolled, so
// that loads and stores keep flowing; in a dear one the processor overlaps the iterations by itself.
#pragma once

#include "../../math.h"
#include "register.h"

namespace nk::NK_ISA {

template <class Op>
struct unroll {
    static constexpr int value = 1;
};
#define NK_CHEAP(Op)                    \
    template <>                         \
    struct unroll<math::Op> {           \
        static constexpr int value = 4; \
    };
NK_CHEAP(Identity)
NK_CHEAP(Relu)
NK_CHEAP(Relu6)
NK_CHEAP(LeakyRelu)
NK_CHEAP(Hardsigmoid)
NK_CHEAP(Hardswish)
NK_CHEAP(Hardtanh)
NK_CHEAP(Hardshrink)
NK_CHEAP(Softshrink)
NK_CHEAP(Threshold)
NK_CHEAP(SquaredRelu)
#undef NK_CHEAP

// The gates that have names of their own (GLU, SwiGLU, GeGLU, ReGLU).
template <class Op>
inline constexpr bool common_gate = false;
template <>
inline constexpr bool common_gate<math::Sigmoid> = true;
template <>
inline constexpr bool common_gate<math::Silu> = true;
template <>
inline constexpr bool common_gate<math::Gelu> = true;
template <>
inline constexpr bool common_gate<math::GeluTanh> = true;
template <>
inline constexpr bool common_gate<math::Relu> = true;

// Computes outputs from one vector of each input: body(in[Ins], out[Outs]).
template <class T, int Ins, int Outs, int Unroll, class Body>
NK_HD void walk(const cpu::Run& r, Body body) {
    using V = compute_vec<T>;
    constexpr int L = V::lanes;
    static_assert(Unroll * L <= cpu::kRepeat, "a repeated value must fill a step");
    const T* in[Ins];
    int64_t advance[Ins];
    T* out[Outs];
    for (int j = 0; j < Ins; ++j) {
        in[j] = static_cast<const T*>(r.in[j]);
        advance[j] = r.step[j];
    }
    for (int j = 0; j < Outs; ++j) out[j] = static_cast<T*>(r.out[j]);

    int64_t i = 0;
    for (; i + Unroll * L <= r.n; i += Unroll * L) {
        V v[Unroll][Ins], y[Unroll][Outs];
        for (int u = 0; u < Unroll; ++u)
            for (int j = 0; j < Ins; ++j) v[u][j] = load(in[j] + u * L);
        for (int u = 0; u < Unroll; ++u) body(v[u], y[u]);
        for (int u = 0; u < Unroll; ++u)
            for (int j = 0; j < Outs; ++j) store(out[j] + i + u * L, y[u][j]);
        for (int j = 0; j < Ins; ++j) in[j] += advance[j] * (Unroll * L);
    }
    for (; i < r.n; i += L) {
        const int k = static_cast<int>(min64(L, r.n - i));
        V v[Ins], y[Outs];
        for (int j = 0; j < Ins; ++j) v[j] = load(in[j], k);
        body(v, y);
        for (int j = 0; j < Outs; ++j) store(out[j] + i, y[j], k);
        for (int j = 0; j < Ins; ++j) in[j] += advance[j] * L;
    }
}

template <class T>
NK_HD math::Params<scalar_for<T>> params(const cpu::Run& r) {
    return {static_cast<scalar_for<T>>(r.p[0]), static_cast<scalar_for<T>>(r.p[1])};
}

// A kernel for a 16-bit type made of the one for float, through blocks in the first-level cache: for the rarer
// combinations, which are not worth code of their own.
template <class T, int Ins, int Outs, cpu::RunKernel Float>
void through_float(const cpu::Run& r) {
    constexpr int block = 256, L = lanes_for<T>;
    alignas(64) float in[Ins][block], out[Outs][block];
    cpu::Run part = r;
    for (int j = 0; j < Ins; ++j) part.in[j] = in[j], part.step[j] = 1;
    for (int j = 0; j < Outs; ++j) part.out[j] = out[j];
    for (int64_t i = 0; i < r.n; i += block) {
        part.n = min64(block, r.n - i);
        for (int j = 0; j < Ins; ++j) {
            const T* from = static_cast<const T*>(r.in[j]) + i * r.step[j];
            for (int k = 0; k < part.n; k += L, from += L * r.step[j])
                store(in[j] + k, load(from, static_cast<int>(min64(L, part.n - k))));
        }
        Float(part);
        for (int j = 0; j < Outs; ++j) {
            T* to = static_cast<T*>(r.out[j]) + i;
            for (int k = 0; k < part.n; k += L)
                store(to + k, load(out[j] + k), static_cast<int>(min64(L, part.n - k)));
        }
    }
}

// Fills table[activation][dtype] with Kernel<Op, T>::run, or the way through float where Kernel says so.
template <template <class, class> class Kernel, class Op>
void fill_row(cpu::RunKernel (&row)[kFloatTypes]) {
    using K = Kernel<Op, float>;
    row[0] = K::run;
    row[1] = Kernel<Op, double>::run;
    if constexpr (Kernel<Op, f16>::direct) {
        row[2] = Kernel<Op, f16>::run;
        row[3] = Kernel<Op, bf16>::run;
    } else {
        row[2] = through_float<f16, K::ins, K::outs, K::run>;
        row[3] = through_float<bf16, K::ins, K::outs, K::run>;
    }
}

template <template <class, class> class Kernel>
void fill(cpu::RunKernel (&table)[kActivations][kFloatTypes]) {
    for (int a = 0; a < kActivations; ++a)
        math::visit_activation(static_cast<Activation>(a), [&](auto op) { fill_row<Kernel, decltype(op)>(table[a]); });
}

}  // namespace nk::NK_ISA
