// Vectors of elements that may lie apart: what follows a product reads and writes.
#pragma once

#include "lanes.h"

namespace nk::NK_ISA {

template <class L, class S>
NK_INLINE typename L::AccReg gather(const S* p, int64_t step, int64_t n) {
    if (step == 1) return L::load(p, L::mask(n));
    typename L::Acc part[L::W] = {};
    for (int64_t j = 0; j < n && j < L::W; ++j) part[j] = to_number(p[j * step]);
    return L::load(part);
}

template <class L, class S>
NK_INLINE void scatter(S* p, int64_t step, int64_t n, typename L::AccReg x) {
    if (step == 1) return L::store(p, x, L::mask(n));
    typename L::Acc part[L::W];
    L::store(part, x);
    for (int64_t j = 0; j < n && j < L::W; ++j) put_number(p[j * step], part[j]);
}

}  // namespace nk::NK_ISA
