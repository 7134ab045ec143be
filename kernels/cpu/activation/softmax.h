// What the softmax kernels share.
//
// softmin is softmax of -x: inputs are multiplied by `sign` as they are loaded, which needs no pass of its own.
// A maximum of -infinity (nothing but -infinity so far) is replaced by 0 in exp(x - maximum), so that the exponentials
// are 0 and not NaN; a row of nothing else then ends in 0 * (1/0) = NaN, torch's answer. NaN in x makes exp(x - m),
// the sum and so the whole row NaN, so maxima need not keep it.
#pragma once

#include "../../math.h"
#include "register.h"

namespace nk::NK_ISA {

template <class S>
NK_HD S minus_infinity() {
    return static_cast<S>(-__builtin_huge_val());
}

// The maximum to subtract.
template <class V>
NK_HD V finite_or_zero(V maximum) {
    using S = typename V::scalar;
    return select(maximum == V(minus_infinity<S>()), V(S(0)), maximum);
}

// exp(x) for x <= 0, in a vector register from beginning to end; one number uses the same code for the same result.
template <class S>
NK_HD S exp_one(S x) {
    S out[vec<S>::lanes];
    store(out, math::exp_nonpositive(vec<S>(x)));
    return out[0];
}
template <class S>
NK_HD S log_one(S x) {
    S out[vec<S>::lanes];
    store(out, math::log(vec<S>(x)));
    return out[0];
}

}  // namespace nk::NK_ISA
