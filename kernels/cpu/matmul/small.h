// Tiny matrices by the thousand, or a narrow one some rows at a time: a, b and out lie within one vector each.
//
//   lane (i, j), in the order in which out lies in memory: sum over p of a[i, p] * b[p, j]
//
// a and b are loaded whole, once, whatever their strides; for each step of k one permutation puts a[i, p] into every
// lane that needs it, another b[p, j]. 4 x 4 x 4 in f32: 2 loads, 8 permutations, 4 multiply-adds, 1 store.
#pragma once

#include "entries.h"
#include "epilogue.h"

namespace nk::NK_ISA {

template <class L>
concept Permutes = requires { typename L::Permutation; };

// K: steps of k, 0 for any number up to the lanes.
template <class L, int K>
void small_of(const cpu::MatmulTask& t, const cpu::MatmulSteps& s) {
    using T = typename L::Unit;
    constexpr int W = L::W, kMost = K > 0 ? K : W;
    const int64_t k = K > 0 ? K : t.k;
    const bool by_rows = (t.m == 1 || t.out.row == t.n) && (t.n == 1 || t.out.col == 1);
    typename L::Permutation::lane of_a[W] = {}, of_b[W] = {}, index[W] = {};
    alignas(64) T bias[W] = {};
    for (int64_t l = 0; l < t.m * t.n; ++l) {
        const int64_t i = by_rows ? l / t.n : l % t.m, j = by_rows ? l % t.n : l / t.m;
        of_a[l] = i * t.a.row, of_b[l] = j * t.b.col;
        if (t.epilogue.bias.data) bias[l] = *at<T>(t.epilogue.bias, i, j);
    }
    typename L::Permutation take_a[kMost], take_b[kMost];
    for (int64_t p = 0; p < k; ++p) {
        for (int l = 0; l < W; ++l) index[l] = of_a[l] + p * t.a.col;
        take_a[p] = typename L::Permutation(index);
        for (int l = 0; l < W; ++l) index[l] = of_b[l] + p * t.b.row;
        take_b[p] = typename L::Permutation(index);
    }
    const typename L::AccReg added = L::load(bias);
    const T *a = at<T>(t.a, 0, 0), *b = at<T>(t.b, 0, 0);
    T* out = at<T>(t.out, 0, 0);
    const typename L::Mask mask_b = L::mask((k - 1) * t.b.row + (t.n - 1) * t.b.col + 1);
    const auto some = [&](int64_t rows, int64_t count) NK_LAMBDA_INLINE {
        const typename L::Mask mask_a = L::mask((rows - 1) * t.a.row + (k - 1) * t.a.col + 1);
        const typename L::Mask mask_out = L::mask(rows * t.n);
        for (int64_t g = 0; g < count; ++g, a += s.a, b += s.b, out += s.out) {
            const typename L::Reg x = L::load(a, mask_a), y = L::load(b, mask_b);
            typename L::AccReg sum = L::zero();
            const auto step = [&](auto p)
                                  NK_LAMBDA_INLINE { sum = L::fma(permute(take_a[p], x), permute(take_b[p], y), sum); };
            if constexpr (K > 0)
                unroll<K>(step);
            else
                for (int64_t p = 0; p < k; ++p) step(p);
            L::store(out, L::add(sum, added), mask_out);
        }
    };
    some(t.m, s.count - 1);
    some(s.last, 1);
}

template <class L>
void small(const cpu::MatmulTask& t, const cpu::MatmulSteps& s) {
    if (t.k == 1) return small_of<L, 1>(t, s);
    if (t.k == 2) return small_of<L, 2>(t, s);
    if (t.k == 3) return small_of<L, 3>(t, s);
    if (t.k == 4) return small_of<L, 4>(t, s);
    small_of<L, 0>(t, s);
}

}  // namespace nk::NK_ISA
