// The one loop of all elementwise kernels. A thread handles `steps` units of 16 bytes of every tensor:
//
//   block b, step s, thread t        unit = (b * steps + s) * 256 + t        (a warp touches 512 adjacent bytes)
//
//   load     the units of all steps are asked for before the first is used
//   compute  switch over the activation once per piece (4 elements, 2 in f64), then the piece's elements side by side
//   store    one 16-byte store per unit and output
//
// Tensors that do not allow units (odd alignment or stride) go through the same compute code: the places of a unit
// are then filled with elements that lie 256 apart, so that a warp still touches adjacent elements:
//
//   element = ((b * steps + s) * kUnit + place) * 256 + t
//
// One tile per block rather than a persistent grid: the loads of a new block overlap the stores of the old ones, and
// no block waits for a slower one at the end. The loops over steps and pieces are not unrolled, so that each
// activation's code is there once per kernel; what is buffered moves down to where that code expects it.
#pragma once

#include "../tile/kernel.h"
#include "../tile/unit.h"
#include "params.h"

namespace nk::cuda {

template <DType T, class Op>
__device__ __forceinline__ void load_operands(const ElementwiseParams& p, int64_t unit, Unit (&u)[Op::inputs]) {
    constexpr int W = kUnit<T>;
    int64_t offset[Op::inputs];
    offsets<Op::outputs>(p.layout, unit, offset);
    const bool whole = p.layout.ndim > 1 || unit * W + W <= p.numel;
#pragma unroll
    for (int k = 0; k < Op::inputs; ++k) {
        const memory_t<T>* at = element<T>(static_cast<const void*>(p.data[Op::outputs + k]), offset[k]);
        if (p.layout.stride[Op::outputs + k][0] == 0)
            u[k] = splat<T>(*at);
        else if (whole)
            u[k] = load_unit(at);
        else
            u[k] = load_partial<T>(at, static_cast<int>(p.numel - unit * W));
    }
}

template <DType T, class Op>
__device__ __forceinline__ void store_results(const ElementwiseParams& p, int64_t unit,
                                              const Unit (&out)[Op::outputs]) {
    constexpr int W = kUnit<T>;
    int64_t offset[Op::outputs];
    offsets<0>(p.layout, unit, offset);
    const bool whole = p.layout.ndim > 1 || unit * W + W <= p.numel;
#pragma unroll
    for (int k = 0; k < Op::outputs; ++k) {
        memory_t<T>* at = element<T>(p.data[k], offset[k]);
        if (whole)
            store_unit(at, out[k]);
        else
            store_partial<T>(at, out[k], static_cast<int>(p.numel - unit * W));
    }
}

template <DType T, class Op>
__device__ __forceinline__ void elementwise(const ElementwiseParams& p) {
    constexpr int W = kUnit<T>, N = kPiece<T>, I = Op::inputs, O = Op::outputs;
    constexpr int kThreads = kElementwiseThreads, kAhead = units_ahead(I);
    using C = compute_t<T>;

    const int64_t first = static_cast<int64_t>(blockIdx.x) * p.steps;
    Unit ahead[kAhead][I] = {};
    if (p.vector) {
#pragma unroll
        for (int s = 0; s < kAhead; ++s) {
            const int64_t unit = (first + s) * kThreads + threadIdx.x;
            if (s < p.steps && unit < p.count) load_operands<T, Op>(p, unit, ahead[s]);
        }
    }

#pragma unroll 1
    for (int s = 0; s < p.steps; ++s) {
        const int64_t unit = (first + s) * kThreads + threadIdx.x;  // with units
        if (p.vector && unit >= p.count) break;
        Unit result[O] = {};
#pragma unroll 1
        for (int piece = 0; piece < kPieces<T>; ++piece) {
            C in[I][N], out[O][N];
            const int64_t place = ((first + s) * W + piece * N) * kThreads + threadIdx.x;  // without: the first element
            if (p.vector) {
#pragma unroll
                for (int k = 0; k < I; ++k) take_piece<T>(ahead[0][k], in[k]);
            } else {
                if (place >= p.count) break;
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    const bool exists = place + i * kThreads < p.count;
                    int64_t offset[I];
                    offsets<O>(p.layout, place + i * kThreads, offset);
#pragma unroll
                    for (int k = 0; k < I; ++k) in[k][i] = exists ? load<T>(p.data[O + k], offset[k]) : C(0);
                }
            }

            Op::template apply<N>(p, in, out);

            if (p.vector) {
#pragma unroll
                for (int k = 0; k < O; ++k) put_piece<T>(out[k], result[k]);
            } else {
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    if (place + i * kThreads >= p.count) break;
                    int64_t offset[O];
                    offsets<0>(p.layout, place + i * kThreads, offset);
#pragma unroll
                    for (int k = 0; k < O; ++k) store<T>(p.data[k], offset[k], out[k][i]);
                }
            }
        }
        if (!p.vector) continue;
        store_results<T, Op>(p, unit, result);
#pragma unroll
        for (int a = 0; a + 1 < kAhead; ++a)
#pragma unroll
            for (int k = 0; k < I; ++k) ahead[a][k] = ahead[a + 1][k];
    }
}

}  // namespace nk::cuda

// One kernel per element type, of an Op in nk::cuda.
#define NK_ELEMENTWISE_KERNELS(name, Op)                                            \
    NK_KERNELS(name, nk::cuda::kElementwiseThreads, 3, nk::cuda::ElementwiseParams, \
               nk::cuda::elementwise<T, nk::cuda::Op>(p))
