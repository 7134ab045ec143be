// The epilogue: from a tile of sums, still in the first cache, to the output. Runs once per output element.
#pragma once

#include "../../dtype.h"
#include "../product/lanes.h"
#include "../product/strided.h"
#include "entries.h"

namespace nk::NK_ISA {

template <class S>
NK_INLINE S* at(const cpu::MatmulOperand& x, int64_t i, int64_t j) {
    return static_cast<S*>(const_cast<void*>(x.data)) + i * x.row + j * x.col;
}

// tile[m][ld] are the sums of out[i0 .. i0 + m, j0 .. j0 + n]; ld >= n rounded up to W. The tile is used as scratch.
template <class L, class S>
void epilogue(const cpu::MatmulTask& t, typename L::Acc* tile, int64_t ld, int64_t i0, int64_t j0, int64_t m,
              int64_t n) {
    using Acc = typename L::Acc;
    constexpr int W = L::W;
    const cpu::MatmulEpilogue& e = t.epilogue;
    if (e.alpha != 1 || e.bias.data || e.preact.data) {
        const typename L::AccReg alpha = L::set(Acc(e.alpha));
        for (int64_t j = 0; j < n; j += W) {
            typename L::AccReg bias = L::zero();
            if (e.bias.data && e.bias.row == 0)
                bias = e.bias.col == 0 ? L::set(to_number(*at<S>(e.bias, 0, 0)))
                                       : gather<L>(at<S>(e.bias, 0, j0 + j), e.bias.col, n - j);
            for (int64_t i = 0; i < m; ++i) {
                if (e.bias.data && e.bias.row != 0) bias = L::set(to_number(*at<S>(e.bias, i0 + i, 0)));
                Acc* c = tile + i * ld + j;
                const typename L::AccReg v = L::add(L::mul(alpha, L::load(c)), bias);
                L::store(c, v);
                if (e.preact.data) scatter<L>(at<S>(e.preact, i0 + i, j0 + j), e.preact.col, n - j, v);
            }
        }
    }
    if (e.activate) {
        const int64_t width = (n + W - 1) / W * W;
        if (width == ld)
            e.activate(tile, m * ld, e.activation, e.p);
        else
            for (int64_t i = 0; i < m; ++i) e.activate(tile + i * ld, width, e.activation, e.p);
    }
    const typename L::AccReg beta = L::set(Acc(e.beta));
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; j += W) {
            typename L::AccReg v = L::load(tile + i * ld + j);
            if (e.residual.data) {
                const S* r = at<S>(e.residual, i0 + i, j0 + j);
                const typename L::AccReg x =
                    e.residual.col == 0 ? L::set(to_number(*r)) : gather<L>(r, e.residual.col, n - j);
                v = L::add(v, L::mul(beta, x));
            }
            scatter<L>(at<S>(t.out, i0 + i, j0 + j), t.out.col, n - j, v);
        }
}

}  // namespace nk::NK_ISA
