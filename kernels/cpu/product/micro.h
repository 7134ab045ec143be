// The microkernel: c[MR, NV * W] (+)= a[MR, k] * b[k, NV * W], sums in registers.
//
// Register budget, AVX-512 14 x 32: 28 sums + 2 vectors of b + 1 broadcast of a = 31 of 32.
//                  AVX2     6 x 16: 12 sums + 2 vectors of b + 1 broadcast of a = 15 of 16.
//
// Each step of k loads NV vectors of b, broadcasts MR elements of a and does MR * NV fused multiply-adds. Rows and
// steps of a may lie at any distance, so a packed panel and the caller's own matrix are read by the same code.
#pragma once

#include "lanes.h"

namespace nk::NK_ISA {

template <class Acc>
struct MicroArgs {
    const char *a = nullptr, *b = nullptr;
    int64_t a_row = 0, a_step = 0, b_step = 0;  // bytes
    int64_t k = 0;                              // units
    const Acc* init = nullptr;                  // sums of the blocks of k before, or null
    int64_t init_ld = 0;
    Acc* c = nullptr;
    int64_t c_ld = 0;
    int n = 0;  // valid columns
    // The last block of k: out = sums + bias of the columns, rows contiguous; null pointers are left out. What is rarer
    // is the epilogue's: each line here stands in a hundred kernels, for the compiler to go through.
    void* out = nullptr;
    int64_t out_ld = 0;
    const void* column_bias = nullptr;
    // What will be added to or written soon, here or by the epilogue; bytes from row to row.
    const void* target = nullptr;
    int64_t target_row = 0;
};

// SB: what b holds in memory, its loads convert; S: what the output holds. `walk` calls the step that it gets for each
// unit of k.
template <class L, class SB, class S, int MR, int NV, class Walk>
NK_INLINE void micro_along(const MicroArgs<typename L::Acc>& g, Walk&& walk) {
    using AccReg = typename L::AccReg;
    typename L::Mask mask[NV];
    unroll<NV>([&](auto v) { mask[v] = L::mask(g.n - v * L::W); });
    AccReg acc[MR][NV];
    unroll<MR>([&](auto i) { unroll<NV>([&](auto v) { acc[i][v] = L::zero(); }); });

    // What the sums will be added or written to arrives while they are made. A plain loop: of a lambda that does
    // nothing but prefetch, g++ 12 thinks that it does nothing at all.
    constexpr int kLines = (NV * L::W * int(sizeof(S)) + 63) / 64;
    const char* target = static_cast<const char*>(g.target);
    for (int i = 0; i < MR; ++i, target += g.target_row)
        for (int line = 0; line < kLines; ++line) __builtin_prefetch(target + line * 64, 1, 3);

    // One pointer for three rows: base, base + row and base + 2 * row are all addresses x86 can form.
    constexpr int kPointers = (MR + 2) / 3;
    const char* a[kPointers];
    unroll<kPointers>([&](auto p) { a[p] = g.a + 3 * p * g.a_row; });
    const int64_t a_row = g.a_row, a_step = g.a_step, b_step = g.b_step;
    const char* b = g.b;
    const auto step_of = [&](auto masked, auto&& broadcast) NK_LAMBDA_INLINE {
        typename L::Reg vb[NV];
        unroll<NV>([&](auto v) {
            if constexpr (masked.value)
                vb[v] = L::load(reinterpret_cast<const SB*>(b) + v * L::W, mask[v]);
            else
                vb[v] = L::load(reinterpret_cast<const SB*>(b) + v * L::W);
        });
        unroll<MR>([&](auto i) {
            const typename L::Reg va = broadcast(a[i / 3] + (i % 3) * a_row);
            unroll<NV>([&](auto v) { acc[i][v] = L::fma(va, vb[v], acc[i][v]); });
        });
        b += b_step;
        unroll<kPointers>([&](auto p) { a[p] += a_step; });
    };
    const auto move = [&](int64_t bytes) NK_LAMBDA_INLINE { unroll<kPointers>([&](auto p) { a[p] += bytes; }); };
    if (!L::kMaskIsFree && g.n == NV * L::W)
        walk([&](auto&& broadcast) NK_LAMBDA_INLINE { step_of(Index<0>{}, broadcast); }, move);
    else
        walk([&](auto&& broadcast) NK_LAMBDA_INLINE { step_of(Index<1>{}, broadcast); }, move);

    // Earlier blocks of k are added only now: sums that start from zero each time round less.
    if (g.init)
        unroll<MR>([&](auto i) {
            unroll<NV>(
                [&](auto v) { acc[i][v] = L::add(acc[i][v], L::load(g.init + i * g.init_ld + v * L::W, mask[v])); });
        });
    if (g.column_bias)
        unroll<NV>([&](auto v) {
            const AccReg bias = L::load(static_cast<const S*>(g.column_bias) + v * L::W, mask[v]);
            unroll<MR>([&](auto i) { acc[i][v] = L::add(acc[i][v], bias); });
        });
    const auto store = [&](auto* to, int64_t ld) NK_LAMBDA_INLINE {
        unroll<MR>([&](auto i) { unroll<NV>([&](auto v) { L::store(to + i * ld + v * L::W, acc[i][v], mask[v]); }); });
    };
    if constexpr (__is_same(S, typename L::Acc))
        store(g.out != nullptr ? static_cast<S*>(g.out) : g.c, g.out != nullptr ? g.out_ld : g.c_ld);
    else if (g.out != nullptr)
        store(static_cast<S*>(g.out), g.out_ld);
    else
        store(g.c, g.c_ld);
}

template <class L, class SB, class S, int MR, int NV>
void micro(const MicroArgs<typename L::Acc>& g) {
    micro_along<L, SB, S, MR, NV>(g, [&](auto&& step, auto&&) NK_LAMBDA_INLINE {
        for (int64_t k = g.k; k > 0; --k) step([](const char* p) NK_LAMBDA_INLINE { return L::broadcast(p); });
    });
}

template <class L>
using Micro = void (*)(const MicroArgs<typename L::Acc>&);

// Tables of microkernels by rows - 1; filled at compile time. Kernel::get<rows, vectors>() is one of them.
template <class Kernel, int Rows, int NV>
struct MicroTable {
    typename Kernel::Pointer f[Rows];
    constexpr MicroTable() : f{} { fill<Rows>(); }
    template <int R>
    constexpr void fill() {
        f[R - 1] = Kernel::template get<R, NV>();
        if constexpr (R > 1) fill<R - 1>();
    }
};

// The kernel for `rows` rows and at least `vectors` vectors.
template <class Kernel, class L, int Rows>
typename Kernel::Pointer pick_by_size(int rows, int vectors) {
    if constexpr (L::kWideVectors > 0)
        if (vectors > L::kVectors) {
            static constexpr MicroTable<Kernel, L::kWideRows, L::kWideVectors> wide;
            return wide.f[rows - 1];
        }
    static constexpr MicroTable<Kernel, Rows, 1> one;
    static constexpr MicroTable<Kernel, Rows, L::kVectors> full;
    return vectors == 1 ? one.f[rows - 1] : full.f[rows - 1];
}

template <class L, class SB, class S>
struct MicroKernel {
    using Pointer = Micro<L>;
    template <int MR, int NV>
    static constexpr Pointer get() {
        return &micro<L, SB, S, MR, NV>;
    }
};

template <class L, class SB, class S, int Rows>
Micro<L> pick_micro(int rows, int vectors) {
    return pick_by_size<MicroKernel<L, SB, S>, L, Rows>(rows, vectors);
}

}  // namespace nk::NK_ISA
