// What the elementwise kernels compute per element. Tensors are numbered outputs first, then inputs.
#pragma once

#include "../elementwise/activation.h"
#include "../elementwise/walk.h"

namespace nk::cuda {

// FromOutput: derivatives are told by y = f(x) in the place of x. OfGates: only activations of gated units are asked
// for.
template <class Derived, int Outputs, int Inputs, bool FromOutput = false, bool OfGates = false>
struct ActivationOp {
    static constexpr int outputs = Outputs, inputs = Inputs;
    static constexpr bool from_output = FromOutput, of_gates = OfGates;
    template <int W, class C>
    static __device__ __forceinline__ void apply(const ElementwiseParams& p, const C (&in)[Inputs][W],
                                                 C (&out)[Outputs][W]) {
        apply_activation<Derived, W>(p.activation, p.p, in, out);
    }
};

struct Unary : ActivationOp<Unary, 1, 1> {  // out | x
    template <class F, class C, class P>
    static __device__ __forceinline__ void element(const C (&in)[1], C (&out)[1], P p) {
        out[0] = F::template f<C>(in[0], p);
    }
};
template <bool FromOutput>
struct AnyUnaryBackward : ActivationOp<AnyUnaryBackward<FromOutput>, 1, 2, FromOutput> {  // out | g, x
    template <class F, class C, class P>
    static __device__ __forceinline__ void element(const C (&in)[2], C (&out)[1], P p) {
        out[0] = F::template vjp<C>(in[0], in[1], p);
    }
};
using UnaryBackward = AnyUnaryBackward<false>;
using UnaryBackwardFromOutput = AnyUnaryBackward<true>;

template <bool FromOutput>
struct AnyUnaryBackward2 : ActivationOp<AnyUnaryBackward2<FromOutput>, 1, 3, FromOutput> {  // out | gg, g, x
    template <class F, class C, class P>
    static __device__ __forceinline__ void element(const C (&in)[3], C (&out)[1], P p) {
        if constexpr (F::flat_slope) {
            out[0] = C(0);
        } else {
            out[0] = in[0] * in[1] * F::template dd<C>(in[2], p);
        }
    }
};
using UnaryBackward2 = AnyUnaryBackward2<false>;
using UnaryBackward2FromOutput = AnyUnaryBackward2<true>;

struct Gated : ActivationOp<Gated, 1, 2, false, true> {  // out | a, b
    template <class F, class C, class P>
    static __device__ __forceinline__ void element(const C (&in)[2], C (&out)[1], P p) {
        out[0] = F::template f<C>(in[0], p) * in[1];
    }
};
struct GatedBackward : ActivationOp<GatedBackward, 2, 3, false, true> {  // ga, gb | g, a, b
    template <class F, class C, class P>
    static __device__ __forceinline__ void element(const C (&in)[3], C (&out)[2], P p) {
        out[0] = F::template vjp<C>(in[0] * in[2], in[1], p);
        out[1] = in[0] * F::template f<C>(in[1], p);
    }
};

// PReLU has its slope in a tensor, so it is no activation of the list. NaN goes the way of the slope, as in torch.
struct Prelu {  // out | x, w
    static constexpr int outputs = 1, inputs = 2;
    template <int W, class C>
    static __device__ __forceinline__ void apply(const ElementwiseParams&, const C (&in)[2][W], C (&out)[1][W]) {
#pragma unroll
        for (int i = 0; i < W; ++i) out[0][i] = in[0][i] > C(0) ? in[0][i] : in[0][i] * in[1][i];
    }
};
struct PreluBackward {  // gx | g, x, w
    static constexpr int outputs = 1, inputs = 3;
    template <int W, class C>
    static __device__ __forceinline__ void apply(const ElementwiseParams&, const C (&in)[3][W], C (&out)[1][W]) {
#pragma unroll
        for (int i = 0; i < W; ++i) out[0][i] = in[1][i] > C(0) ? in[0][i] : in[0][i] * in[2][i];
    }
};

}  // namespace nk::cuda
