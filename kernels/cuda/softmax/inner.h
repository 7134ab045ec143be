// Softmax along a dim that is not the innermost: neighbouring threads take neighbouring rows, so that every load is a
// stretch of adjacent memory although a row's own elements lie far apart.
//
//                     lane 0     lane 1    ...       each lane W adjacent rows: one 16-byte unit, or W = 1
//   part 0, l = 0    [ . . . ]  [ . . . ]
//   part 1, l = 1    [ . . . ]  [ . . . ]            part y takes elements y, y + parts, ... of each row
//   ...
//
// A thread keeps a running maximum and a rescaled sum per row, R loads in flight; the parts meet in shared memory.
// When R * parts elements are the whole row, the second pass uses the registers of the first; else it reads again,
// from L2 as a rule, since a block's rows are few.
#pragma once

#include "rows.h"

namespace nk::cuda {

template <int W, class C>
using InnerScratch = C[W][kSoftmaxInnerThreads];

// Combines v[i] over the parts; all threads get the result of their lane.
template <int W, class C, class Op>
__device__ __forceinline__ void reduce_parts(InnerScratch<W, C>& scratch, C (&v)[W], int lanes, Op op) {
    const int tid = threadIdx.x, part = tid / lanes;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < W; ++i) scratch[i][tid] = v[i];
#pragma unroll 1
    for (int half = kSoftmaxInnerThreads / lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (part < half)
#pragma unroll
            for (int i = 0; i < W; ++i) scratch[i][tid] = op(scratch[i][tid], scratch[i][tid + half * lanes]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < W; ++i) v[i] = scratch[i][tid % lanes];
}

// W adjacent elements as they lie in memory.
template <DType T, int W>
struct Strip {
    memory_t<T> e;
    __device__ __forceinline__ void load(const void* base, int64_t at, bool) { e = *element<T>(base, at); }
    __device__ __forceinline__ compute_t<T> operator[](int) const { return to_compute<T>(e); }
    static __device__ __forceinline__ void store(void* base, int64_t at, const compute_t<T> (&x)[W]) {
        nk::cuda::store<T>(base, at, x[0]);
    }
};
template <DType T, int W>
    requires(W > 1)
struct Strip<T, W> {
    Unit u;
    __device__ __forceinline__ void load(const void* base, int64_t at, bool same) {
        u = same ? splat<T>(*element<T>(base, at)) : load_unit(element<T>(base, at));
    }
    __device__ __forceinline__ compute_t<T> operator[](int i) const {
        compute_t<T> x[W];
        unpack<T>(u, x);
        return x[i];
    }
    static __device__ __forceinline__ void store(void* base, int64_t at, const compute_t<T> (&x)[W]) {
        store_unit(element<T>(base, at), pack<T>(x));
    }
};

// Where this thread's rows begin in `Count` tensors from First on, and which elements of them are its own.
struct InnerPlace {
    int lanes, part, parts;
    bool exists;
    int64_t at[3];

    __device__ __forceinline__ explicit InnerPlace(const SoftmaxParams& p) {
        lanes = 1 << p.lanes_log2;
        part = threadIdx.x >> p.lanes_log2;
        parts = kSoftmaxInnerThreads >> p.lanes_log2;
        const int64_t unit = static_cast<int64_t>(blockIdx.x) * lanes + (threadIdx.x & (lanes - 1));
        exists = unit < p.rows;
        offsets<0>(p.layout, exists ? unit : 0, at);
    }
};

template <DType T, int W, int R>
__device__ __forceinline__ void softmax_inner(const SoftmaxParams& p) {
    using C = compute_t<T>;
    __shared__ InnerScratch<W, C> scratch;
    const InnerPlace me(p);
    const C sign = p.kind == kSoftmin ? C(-1) : C(1);
    const int64_t length = me.exists ? p.length : 0;
    const int64_t step = static_cast<int64_t>(R) * me.parts;
    const bool once = p.length <= step;
    const bool same = p.layout.stride[1][0] == 0;

    Strip<T, W> x[R];
    const auto fetch = [&](int64_t l) {
#pragma unroll
        for (int r = 0; r < R; ++r)
            if (l + r * me.parts < length) x[r].load(p.in[0], me.at[1] + (l + r * me.parts) * p.stride[1], same);
    };

    Online<C> state[W];
    for (int64_t l = me.part; l < length; l += step) {
        fetch(l);
#pragma unroll
        for (int i = 0; i < W; ++i) {
            C v[R];
#pragma unroll
            for (int r = 0; r < R; ++r) v[r] = l + r * me.parts < length ? sign * x[r][i] : -infinity<C>();
            state[i].add(v);
        }
    }

    C top[W], sum[W];
#pragma unroll
    for (int i = 0; i < W; ++i) top[i] = state[i].top;
    reduce_parts<W>(scratch, top, me.lanes, Max{});
#pragma unroll
    for (int i = 0; i < W; ++i) sum[i] = state[i].scaled(top[i]);
    reduce_parts<W>(scratch, sum, me.lanes, Add{});
#pragma unroll
    for (int i = 0; i < W; ++i) sum[i] = p.kind == kLogSoftmax ? math::log(sum[i]) : C(1) / sum[i];

    for (int64_t l = me.part; l < length; l += step) {
        if (!once) fetch(l);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (l + r * me.parts >= length) break;
            C y[W];
#pragma unroll
            for (int i = 0; i < W; ++i) {
                const C d = sign * x[r][i] - top[i];
                y[i] = p.kind == kLogSoftmax ? d - sum[i] : math::exp(d) * sum[i];
            }
            Strip<T, W>::store(p.out, me.at[0] + (l + r * me.parts) * p.stride[0], y);
        }
    }
}

template <DType T, int W, int R>
__device__ __forceinline__ void softmax_backward_inner(const SoftmaxParams& p) {
    using C = compute_t<T>;
    __shared__ InnerScratch<W, C> scratch;
    const InnerPlace me(p);
    const int64_t length = me.exists ? p.length : 0;
    const int64_t step = static_cast<int64_t>(R) * me.parts;
    const bool once = p.length <= step;
    const bool same_g = p.layout.stride[1][0] == 0, same_y = p.layout.stride[2][0] == 0;

    Strip<T, W> g[R], y[R];
    const auto fetch = [&](int64_t l) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (l + r * me.parts >= length) break;
            g[r].load(p.in[0], me.at[1] + (l + r * me.parts) * p.stride[1], same_g);
            y[r].load(p.in[1], me.at[2] + (l + r * me.parts) * p.stride[2], same_y);
        }
    };

    C total[W] = {};
    for (int64_t l = me.part; l < length; l += step) {
        fetch(l);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (l + r * me.parts >= length) break;
#pragma unroll
            for (int i = 0; i < W; ++i) total[i] += p.kind == kLogSoftmax ? g[r][i] : g[r][i] * y[r][i];
        }
    }
    reduce_parts<W>(scratch, total, me.lanes, Add{});

    for (int64_t l = me.part; l < length; l += step) {
        if (!once) fetch(l);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (l + r * me.parts >= length) break;
            C gx[W];
#pragma unroll
            for (int i = 0; i < W; ++i) gx[i] = softmax_gradient(p.kind, g[r][i], y[r][i], total[i]);
            Strip<T, W>::store(p.out, me.at[0] + (l + r * me.parts) * p.stride[0], gx);
        }
    }
}

}  // namespace nk::cuda
