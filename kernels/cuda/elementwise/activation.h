// An activation of the list on the elements that a kernel holds, chosen at run time.
#pragma once

#include <stdint.h>

#include "../../activation.h"
#include "../../math.h"

namespace nk::cuda {

// Op::element for every place of a piece, the activation being chosen once.
template <class Op, int W, class C>
__device__ __forceinline__ void apply_activation(int32_t id, const double (&p)[2], const C (&in)[Op::inputs][W],
                                                 C (&out)[Op::outputs][W]) {
    const math::Params<C> params{static_cast<C>(p[0]), static_cast<C>(p[1])};
    const auto compute = [&](auto f) {
        using F = decltype(f);
#pragma unroll
        for (int i = 0; i < W; ++i) {
            C x[Op::inputs], y[Op::outputs];
#pragma unroll
            for (int k = 0; k < Op::inputs; ++k) x[k] = in[k][i];
            Op::template element<F>(x, y, params);
#pragma unroll
            for (int k = 0; k < Op::outputs; ++k) out[k][i] = y[k];
        }
    };
    if constexpr (Op::of_gates)
        math::visit_gate(static_cast<Activation>(id), compute);
    else if constexpr (Op::from_output)
        math::visit_told_by_output(static_cast<Activation>(id), compute);
    else
        math::visit_activation(static_cast<Activation>(id), compute);
}

}  // namespace nk::cuda
