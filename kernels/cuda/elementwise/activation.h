// An activation of the list on the elements that a kernel holds, chosen at run time.
#pragma once

#include <stdint.h>

#include "../../activation.h"
#include "../../math.h"

namespace nk::cuda {

// Calls f with the struct of nk::math that the id names, or its derivatives as functions of the output, which an Op
// that has use for them (OfOutput) is asked for by p0; all threads of a launch take the same way.
template <bool OfOutput = false, class F>
__device__ __forceinline__ void with_activation(int32_t id, F&& f, double p0 = 0) {
    math::visit_activation(static_cast<Activation>(id), [&](auto op) {
        using Op = decltype(op);
        if constexpr (OfOutput && math::told_by_output<Op>)
            if (p0 != 0) return f(typename Op::OfOutput{});
        f(op);
    });
}

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
    with_activation<Op::of_output>(id, compute, p[0]);
}

}  // namespace nk::cuda
