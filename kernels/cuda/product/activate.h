// The activation of an epilogue, chosen at run time. For f32 one function per module, called rather than inlined: the
// kernels of a module would each carry some twenty functions otherwise. The accumulators lie in shared memory by then,
// so that the call finds registers enough. No module has more than one f64 kernel, so f64 is inlined.
#pragma once

#include "../../math.h"

namespace nk::cuda {

template <class F, class Number, int Lanes>
__device__ __forceinline__ void activate_by(Number (&v)[Lanes], math::Params<Number> p) {
#pragma unroll
    for (int i = 0; i < Lanes; ++i) v[i] = F::template f<Number>(v[i], p);
}

template <class Number, int Lanes>
__device__ __forceinline__ void activate_inline(Number (&v)[Lanes], int activation, math::Params<Number> p) {
    switch (static_cast<Activation>(activation)) {
#define NK_CASE(id, F, cost, told, parameters) \
    case Activation::id:                       \
        return activate_by<math::F>(v, p);
        NK_ACTIVATIONS(NK_CASE)
#undef NK_CASE
    }
}

static __device__ __noinline__ float4 activate_f32(float4 x, int activation, float p0, float p1) {
    float v[4] = {x.x, x.y, x.z, x.w};
    activate_inline(v, activation, math::Params<float>{p0, p1});
    return make_float4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void activate(float (&v)[4], int activation, float p0, float p1) {
    const float4 r = activate_f32(make_float4(v[0], v[1], v[2], v[3]), activation, p0, p1);
    v[0] = r.x, v[1] = r.y, v[2] = r.z, v[3] = r.w;
}
__device__ __forceinline__ void activate(double (&v)[2], int activation, double p0, double p1) {
    activate_inline(v, activation, math::Params<double>{p0, p1});
}

}  // namespace nk::cuda
