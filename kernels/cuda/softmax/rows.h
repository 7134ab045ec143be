// Softmax where the elements of a row lie side by side (or where no other dim is better): `lanes` threads share a row.
//
//   warp    2^k <= 32 lanes of a warp, 128 threads hold 128 / lanes rows; the row stays in registers
//   block   one block per row; the row stays in registers: read once, written once
//   long    one block per row; the first pass keeps a running maximum and rescales the running sum ("online"),
//           the second reads the row again, mostly from L2
#pragma once

#include "../../math.h"
#include "../tile/row.h"
#include "params.h"

namespace nk::cuda {

template <class C>
__device__ __forceinline__ C infinity() {
    return static_cast<C>(__int_as_float(0x7f800000));
}

// y = exp(x - max) / sum, or x - max - log(sum); softmin is softmax of -x. The fill of places past the end is -inf,
// whose exponential is 0. A row of -inf only, or with +inf or NaN, gives NaN throughout, as torch does.
template <DType T, int N, class Row>
__device__ __forceinline__ void softmax_in_registers(const SoftmaxParams& p, const Row& r, void* out, const void* in,
                                                     int length) {
    using C = compute_t<T>;
    constexpr int K = kChunk<N>;
    const C sign = p.kind == kSoftmin ? C(-1) : C(1);
    C x[N];
    load_row<T, N>(in, p.stride[1], p.vector, length, r.lane, r.lanes, -sign * infinity<C>(), x);
    C top = -infinity<C>();
#pragma unroll
    for (int i = 0; i < N; ++i) {
        x[i] *= sign;
        top = Max{}(top, x[i]);
    }
    top = r.reduce(top, -infinity<C>(), Max{});

    C sum = 0;
#pragma unroll
    for (int c = 0; c < N; c += K) {
        if (c * r.lanes >= length) break;
#pragma unroll
        for (int i = c; i < c + K; ++i) {
            x[i] -= top;
            const C e = math::exp(x[i]);
            if (p.kind != kLogSoftmax) x[i] = e;
            sum += e;
        }
    }
    sum = r.reduce(sum, C(0), Add{});

    if (p.kind == kLogSoftmax) {
        const C log_sum = math::log(sum);
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] -= log_sum;
    } else {
        const C scale = C(1) / sum;
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] *= scale;
    }
    store_row<T, N>(out, p.stride[0], p.vector, length, r.lane, r.lanes, x);
}

// softmax, softmin: gx = +-y (g - sum(g y));  log_softmax: gx = g - exp(y) sum(g).
template <class C>
__device__ __forceinline__ C softmax_gradient(int kind, C g, C y, C total) {
    if (kind == kLogSoftmax) return g - math::exp(y) * total;
    const C gx = y * (g - total);
    return kind == kSoftmin ? -gx : gx;
}

template <DType T, int N, class Row>
__device__ __forceinline__ void softmax_backward_in_registers(const SoftmaxParams& p, const Row& r, void* out,
                                                              const void* g_row, const void* y_row, int length) {
    using C = compute_t<T>;
    C g[N], y[N];
    load_row<T, N>(g_row, p.stride[1], p.vector, length, r.lane, r.lanes, C(0), g);
    load_row<T, N>(y_row, p.stride[2], p.vector, length, r.lane, r.lanes, C(0), y);
    C total = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) total += p.kind == kLogSoftmax ? g[i] : g[i] * y[i];
    total = r.reduce(total, C(0), Add{});
#pragma unroll
    for (int c = 0; c < N; c += kChunk<N>) {
        if (c * r.lanes >= length) break;
#pragma unroll
        for (int i = c; i < c + kChunk<N>; ++i) g[i] = softmax_gradient(p.kind, g[i], y[i], total);
    }
    store_row<T, N>(out, p.stride[0], p.vector, length, r.lane, r.lanes, g);
}

template <DType T, int N, bool Backward>
__device__ __forceinline__ void softmax_warp(const SoftmaxParams& p) {
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kRowWarpThreads + threadIdx.x;
    const WarpRow r{static_cast<int>(threadIdx.x & ((1 << p.lanes_log2) - 1)), 1 << p.lanes_log2};
    const int64_t row = thread >> p.lanes_log2;
    const int length = row < p.rows ? static_cast<int>(p.length) : 0;  // lanes without a row still join the shuffles
    int64_t at[3];
    offsets<0>(p.layout, row < p.rows ? row : 0, at);
    void* out = element<T>(p.out, at[0]);
    const void* in = element<T>(p.in[0], at[1]);
    if constexpr (Backward)
        softmax_backward_in_registers<T, N>(p, r, out, in, element<T>(p.in[1], at[2]), length);
    else
        softmax_in_registers<T, N>(p, r, out, in, length);
}

template <DType T, int N, bool Backward>
__device__ __forceinline__ void softmax_block(const SoftmaxParams& p) {
    __shared__ compute_t<T> scratch[kWarp];
    const BlockRow<compute_t<T>> r{scratch, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    int64_t at[3];
    offsets<0>(p.layout, blockIdx.x, at);
    void* out = element<T>(p.out, at[0]);
    const void* in = element<T>(p.in[0], at[1]);
    if constexpr (Backward)
        softmax_backward_in_registers<T, N>(p, r, out, in, element<T>(p.in[1], at[2]), static_cast<int>(p.length));
    else
        softmax_in_registers<T, N>(p, r, out, in, static_cast<int>(p.length));
}

// The running maximum and the sum of exp(x - reference(maximum)).
template <class C>
struct Online {
    C top = -infinity<C>(), sum = 0;

    // While all is -inf, differences are taken to 0: exp(-inf - -inf) would put a NaN into the sum.
    static __device__ __forceinline__ C reference(C top) { return top == -infinity<C>() ? C(0) : top; }

    template <int N>
    __device__ __forceinline__ void add(const C (&x)[N]) {
        C next = top;
#pragma unroll
        for (int i = 0; i < N; ++i) next = Max{}(next, x[i]);
        const C to = reference(next);
        sum *= math::exp(top - to);
        top = next;
#pragma unroll
        for (int i = 0; i < N; ++i) sum += math::exp(x[i] - to);
    }
    // This thread's sum on the scale of the common maximum.
    __device__ __forceinline__ C scaled(C common) const { return sum * math::exp(top - reference(common)); }
};

template <DType T, int N>
__device__ __forceinline__ void softmax_long(const SoftmaxParams& p) {
    using C = compute_t<T>;
    constexpr int kLanes = kRowLongThreads;
    __shared__ C scratch[kWarp];
    const int lane = threadIdx.x;
    int64_t at[2];
    offsets<0>(p.layout, blockIdx.x, at);
    const C sign = p.kind == kSoftmin ? C(-1) : C(1);
    const auto load_tile = [&](int64_t begin, int length, C(&x)[N]) {
        load_row<T, N>(element<T>(p.in[0], at[1] + begin * p.stride[1]), p.stride[1], p.vector, length, lane, kLanes,
                       -sign * infinity<C>(), x);
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] *= sign;
    };

    Online<C> state;
    for_each_tile<N, kRowLongThreads>(p.length, [&](int64_t begin, int length) {
        C x[N];
        load_tile(begin, length, x);
        state.add(x);
    });
    const C top = reduce_block(state.top, scratch, -infinity<C>(), Max{});
    const C sum = reduce_block(state.scaled(top), scratch, C(0), Add{});
    const C scale = C(1) / sum, log_sum = math::log(sum);

    for_each_tile<N, kRowLongThreads>(p.length, [&](int64_t begin, int length) {
        C x[N];
        load_tile(begin, length, x);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            x[i] -= top;
            x[i] = p.kind == kLogSoftmax ? x[i] - log_sum : math::exp(x[i]) * scale;
        }
        store_row<T, N>(element<T>(p.out, at[0] + begin * p.stride[0]), p.stride[0], p.vector, length, lane, kLanes, x);
    });
}

template <DType T, int N>
__device__ __forceinline__ void softmax_backward_long(const SoftmaxParams& p) {
    using C = compute_t<T>;
    constexpr int kLanes = kRowLongThreads;
    __shared__ C scratch[kWarp];
    const int lane = threadIdx.x;
    int64_t at[3];
    offsets<0>(p.layout, blockIdx.x, at);
    const auto load_tile = [&](int k, int64_t begin, int length, C(&x)[N]) {
        load_row<T, N>(element<T>(p.in[k], at[1 + k] + begin * p.stride[1 + k]), p.stride[1 + k], p.vector, length,
                       lane, kLanes, C(0), x);
    };

    C total = 0;
    for_each_tile<N, kRowLongThreads>(p.length, [&](int64_t begin, int length) {
        C g[N], y[N];
        load_tile(0, begin, length, g);
        if (p.kind != kLogSoftmax) load_tile(1, begin, length, y);
#pragma unroll
        for (int i = 0; i < N; ++i) total += p.kind == kLogSoftmax ? g[i] : g[i] * y[i];
    });
    total = reduce_block(total, scratch, C(0), Add{});

    for_each_tile<N, kRowLongThreads>(p.length, [&](int64_t begin, int length) {
        C g[N], y[N];
        load_tile(0, begin, length, g);
        load_tile(1, begin, length, y);
#pragma unroll
        for (int i = 0; i < N; ++i) g[i] = softmax_gradient(p.kind, g[i], y[i], total);
        store_row<T, N>(element<T>(p.out, at[0] + begin * p.stride[0]), p.stride[0], p.vector, length, lane, kLanes, g);
    });
}

}  // namespace nk::cuda
