// layer_norm and rms_norm, and their gradients in x: y = (x - mean) * rstd * weight + bias (no mean in rms_norm).
//
//   warp, block   the row stays in registers: read once, its mean, then the squares of the deviations from it
//   long          one block per row; each thread merges the moments of its pieces of the row as Chan, Golub and LeVeque
//                 (1983) do, the block those of its threads; the second pass reads the row again, mostly from L2
//
// The mean's rounding is made good: what is left of the deviations' sum goes into the output, so that a row far from 0
// comes out as well as its deviations alone.
#pragma once

#include "../../math.h"
#include "../tile/row.h"
#include "params.h"

namespace nk::cuda {

template <int W>
struct Width {
    static constexpr int value = W;
};

// f(Width<W>, place, element) for the W adjacent places of this thread that are one load.
template <DType T, int N, class F>
__device__ __forceinline__ void each_place(bool vector, int length, int lane, int lanes, F&& f) {
    walk_row<T, N>(
        vector, length, lane, lanes, [&](int place, int e) { f(Width<kUnit<T>>{}, place, e); },
        [&](int place, int e) { f(Width<1>{}, place, e); });
}

// W elements of tensor K of the row from `e` on, as numbers; and back. AnyDims: the row has more than one dim perhaps,
// which takes divisions, and code for each of the unrolled places.
template <DType T, int K, int W, bool AnyDims, class L>
__device__ __forceinline__ int64_t along(const L& inner, int64_t e) {
    if constexpr (W > 1) return e;
    if constexpr (!AnyDims) return e * inner.stride[K][0];
    int64_t at[1];
    offsets<K>(inner, e, at);
    return at[0];
}
template <DType T, int K, int W, bool AnyDims, class L>
__device__ __forceinline__ void take(const void* row, const L& inner, int64_t e, compute_t<T> (&v)[W]) {
    if constexpr (W > 1)
        unpack<T>(load_unit(element<T>(row, e)), v);
    else
        v[0] = load<T>(row, along<T, K, W, AnyDims>(inner, e));
}
template <DType T, int K, int W, bool AnyDims, class L>
__device__ __forceinline__ void put(void* row, const L& inner, int64_t e, const compute_t<T> (&v)[W]) {
    if constexpr (W > 1)
        store_unit(element<T>(row, e), pack<T>(v));
    else
        store<T>(row, along<T, K, W, AnyDims>(inner, e), v[0]);
}

// A thread's N places of a piece of the row that begins at `begin`.
template <DType T, int N, bool AnyDims>
struct Piece {
    using C = compute_t<T>;
    bool vector;
    int length, lane, lanes;
    int64_t begin;

    template <class F>
    __device__ __forceinline__ void each(F&& f) const {
        each_place<T, N>(vector, length, lane, lanes, f);
    }
    // 0 in places beyond the row's end.
    template <int K, class L>
    __device__ __forceinline__ void load_all(const void* row, const L& inner, C (&x)[N]) const {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = 0;
        each([&](auto width, int place, int e) {
            constexpr int W = decltype(width)::value;
            C v[W];
            take<T, K, W, AnyDims>(row, inner, begin + e, v);
#pragma unroll
            for (int i = 0; i < W; ++i)
                if (place + i < N) x[place + i] = v[i];
        });
    }
    // The places of `x` and, of each, f(x, weight, ...) written to tensor 0.
    template <class L, class F>
    __device__ __forceinline__ void write(void* row, const L& inner, const C (&x)[N], F&& f) const {
        each([&](auto width, int place, int e) {
            constexpr int W = decltype(width)::value;
            C v[W];
#pragma unroll
            for (int i = 0; i < W; ++i) v[i] = x[place + i < N ? place + i : 0];
            f(width, begin + e, v);
            put<T, 0, W, AnyDims>(row, inner, begin + e, v);
        });
    }
};

// (x - mean) * rstd + shift, times weight, plus bias.
template <DType T, int N, bool AnyDims>
__device__ __forceinline__ void write_normalized(const NormParams& p, const Piece<T, N, AnyDims>& piece, void* y,
                                                 const compute_t<T> (&x)[N], compute_t<T> mean, compute_t<T> rstd,
                                                 compute_t<T> shift) {
    using C = compute_t<T>;
    piece.write(y, p.inner, x, [&](auto width, int64_t e, auto& v) {
        constexpr int W = decltype(width)::value;
        C w[W], b[W];
        if (p.weight) take<T, 2, W, AnyDims>(p.weight, p.inner, e, w);
        if (p.bias) take<T, 3, W, AnyDims>(p.bias, p.inner, e, b);
#pragma unroll
        for (int i = 0; i < W; ++i) {
            v[i] = p.mean ? math::fma(v[i] - mean, rstd, shift) : v[i] * rstd;
            if (p.weight) v[i] = p.bias ? math::fma(v[i], w[i], b[i]) : v[i] * w[i];
            if (!p.weight && p.bias) v[i] += b[i];
        }
    });
}

// What one row's statistics come to; the lane that keeps them does.
template <DType T>
struct RowStatistics {
    using C = compute_t<T>;
    C center = 0, left = 0, rstd = 0;  // the mean is center + left

    __device__ __forceinline__ C shift() const { return -left * rstd; }
    // From the sum of the deviations from the center and that of their squares.
    __device__ __forceinline__ void finish(const NormParams& p, C deviations, C squares) {
        const C n = static_cast<C>(p.length);
        left = p.mean ? deviations / n : C(0);
        rstd = C(1) / sqrt((squares - left * deviations) / n + static_cast<C>(p.eps));
    }
    __device__ __forceinline__ void keep(const NormParams& p, int64_t at) const {
        if (p.mean) static_cast<C*>(p.mean)[at] = center + left;
        static_cast<C*>(p.rstd)[at] = rstd;
    }
};

template <DType T, int N, class Row>
__device__ __forceinline__ void norm_in_registers(const NormParams& p, const Row& r, const int64_t (&at)[3],
                                                  int length) {
    using C = compute_t<T>;
    const Piece<T, N, false> piece{p.vector != 0, length, r.lane, r.lanes, 0};
    C x[N];
    piece.template load_all<1>(element<T>(p.x, at[1]), p.inner, x);
    RowStatistics<T> s;
    if (p.mean) {
        C sum = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) sum += x[i];
        s.center = r.reduce(sum, C(0), Add{}) / static_cast<C>(p.length);
    }
    C squares = 0, deviations = 0;
    piece.each([&](auto width, int place, int) {
#pragma unroll
        for (int i = 0; i < decltype(width)::value; ++i) {
            const C d = x[place + i < N ? place + i : 0] - s.center;
            squares = math::fma(d, d, squares);
            deviations += d;
        }
    });
    squares = r.reduce(squares, C(0), Add{});
    deviations = p.mean ? r.reduce(deviations, C(0), Add{}) : C(0);
    s.finish(p, deviations, squares);
    if (length >= 0 && r.lane == 0) s.keep(p, at[2]);
    write_normalized(p, piece, element<T>(p.y, at[0]), x, s.center, s.rstd, s.shift());
}

// gx = rstd * u - a - d * b with u = g * weight, d = x - mean, a = rstd * sum(u) / n, b = rstd^3 * sum(u * d) / n.
template <DType T>
struct RowGradient {
    using C = compute_t<T>;
    C mean, rstd, a = 0, b = 0;

    __device__ __forceinline__ RowGradient(const NormBackwardParams& p, int64_t at)
        : mean(p.mean ? static_cast<const C*>(p.mean)[at] : C(0)), rstd(static_cast<const C*>(p.rstd)[at]) {}
    __device__ __forceinline__ void finish(const NormBackwardParams& p, C sum_u, C sum_ud) {
        const C n = static_cast<C>(p.length);
        a = p.mean ? rstd * (sum_u / n) : C(0);
        b = sum_ud * rstd / n * rstd * rstd;
    }
    __device__ __forceinline__ C of(C u, C d) const { return math::fma(d, -b, u * rstd - a); }
};

// u = g * weight and d = x - mean of a piece, 0 beyond the row's end, and their sums.
template <DType T, int N, bool AnyDims>
__device__ __forceinline__ void load_terms(const NormBackwardParams& p, const Piece<T, N, AnyDims>& piece,
                                           const int64_t (&at)[4], compute_t<T> mean, compute_t<T> (&u)[N],
                                           compute_t<T> (&d)[N], compute_t<T>& sum_u, compute_t<T>& sum_ud) {
    using C = compute_t<T>;
    piece.template load_all<1>(element<T>(p.g, at[1]), p.inner, u);
    piece.template load_all<2>(element<T>(p.x, at[2]), p.inner, d);
    if (p.weight) {
        piece.each([&](auto width, int place, int e) {
            constexpr int W = decltype(width)::value;
            C w[W];
            take<T, 3, W, AnyDims>(p.weight, p.inner, piece.begin + e, w);
#pragma unroll
            for (int i = 0; i < W; ++i)
                if (place + i < N) u[place + i] *= w[i];
        });
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
        d[i] -= mean;
        sum_u += u[i];
        sum_ud = math::fma(u[i], d[i], sum_ud);
    }
}

template <DType T, int N, bool AnyDims>
__device__ __forceinline__ void write_gradient(const NormBackwardParams& p, const Piece<T, N, AnyDims>& piece, void* gx,
                                               const RowGradient<T>& s, compute_t<T> (&u)[N],
                                               const compute_t<T> (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] = s.of(u[i], d[i]);
    piece.write(gx, p.inner, u, [](auto, int64_t, auto&) {});
}

template <DType T, int N, class Row>
__device__ __forceinline__ void norm_backward_in_registers(const NormBackwardParams& p, const Row& r,
                                                           const int64_t (&at)[4], int length) {
    using C = compute_t<T>;
    const Piece<T, N, false> piece{p.vector != 0, length, r.lane, r.lanes, 0};
    RowGradient<T> s(p, at[3]);
    C u[N], d[N], sum_u = 0, sum_ud = 0;
    load_terms(p, piece, at, s.mean, u, d, sum_u, sum_ud);
    if (p.mean) sum_u = r.reduce(sum_u, C(0), Add{});
    s.finish(p, sum_u, r.reduce(sum_ud, C(0), Add{}));
    write_gradient(p, piece, element<T>(p.gx, at[0]), s, u, d);
}

// f(row's lanes, offsets, length) for this thread's row; in the warp kernels lanes without a row have length -1 and
// still join the shuffles.
template <int K, class Params, class F>
__device__ __forceinline__ void warp_row(const Params& p, F&& f) {
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kRowWarpThreads + threadIdx.x;
    const WarpRow r{static_cast<int>(threadIdx.x & ((1 << p.lanes_log2) - 1)), 1 << p.lanes_log2};
    const int64_t row = thread >> p.lanes_log2;
    int64_t at[K];
    offsets<0>(p.outer, row < p.rows ? row : 0, at);
    f(r, at, row < p.rows ? static_cast<int>(p.length) : -1);
}
template <int K, class C, class Params, class F>
__device__ __forceinline__ void block_row(const Params& p, F&& f) {
    __shared__ C scratch[kWarp];
    const BlockRow<C> r{scratch, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    int64_t at[K];
    offsets<0>(p.outer, blockIdx.x, at);
    f(r, at, static_cast<int>(p.length));
}

template <DType T, int N>
__device__ __forceinline__ void norm_long(const NormParams& p) {
    using C = compute_t<T>;
    block_row<3, C>(p, [&](const auto& r, const int64_t (&at)[3], int) {
        const void* const row = element<T>(p.x, at[1]);
        const auto tiles = [&](auto&& f) {
            for_each_tile<N, kRowLongThreads>(p.length, [&](int64_t begin, int length) {
                const Piece<T, N, true> piece{p.vector != 0, length, r.lane, r.lanes, begin};
                C x[N];
                piece.template load_all<1>(row, p.inner, x);
                f(piece, x);
            });
        };
        C n = 0, mean = 0, squares = 0;  // of this thread's elements
        tiles([&](const auto& piece, const C(&x)[N]) {
            C count = 0, sum = 0;
            piece.each([&](auto width, int place, int) {
#pragma unroll
                for (int i = 0; i < decltype(width)::value; ++i) sum += x[place + i < N ? place + i : 0];
                count += C(decltype(width)::value);
            });
            if (count == C(0)) return;
            const C center = p.mean ? sum / count : C(0);
            C own = 0;
            piece.each([&](auto width, int place, int) {
#pragma unroll
                for (int i = 0; i < decltype(width)::value; ++i) {
                    const C d = x[place + i < N ? place + i : 0] - center;
                    own = math::fma(d, d, own);
                }
            });
            const C delta = center - mean, share = count / (n + count);
            mean = math::fma(delta, share, mean);
            squares += own + delta * delta * (n * share);
            n += count;
        });
        RowStatistics<T> s;
        if (p.mean) s.center = r.reduce(n * mean, C(0), Add{}) / static_cast<C>(p.length);
        const C apart = mean - s.center;
        const C deviations = p.mean ? r.reduce(n * apart, C(0), Add{}) : C(0);
        squares = r.reduce(squares + n * apart * apart, C(0), Add{});
        s.finish(p, deviations, squares);
        if (r.lane == 0) s.keep(p, at[2]);
        tiles([&](const auto& piece, const C(&x)[N]) {
            write_normalized(p, piece, element<T>(p.y, at[0]), x, s.center, s.rstd, s.shift());
        });
    });
}

template <DType T, int N>
__device__ __forceinline__ void norm_backward_long(const NormBackwardParams& p) {
    using C = compute_t<T>;
    block_row<4, C>(p, [&](const auto& r, const int64_t (&at)[4], int) {
        RowGradient<T> s(p, at[3]);
        C sum_u = 0, sum_ud = 0;
        const auto tiles = [&](auto&& f) {
            for_each_tile<N, kRowLongThreads>(p.length, [&](int64_t begin, int length) {
                const Piece<T, N, true> piece{p.vector != 0, length, r.lane, r.lanes, begin};
                C u[N], d[N], part_u = 0, part_ud = 0;
                load_terms(p, piece, at, s.mean, u, d, part_u, part_ud);
                f(piece, u, d, part_u, part_ud);
            });
        };
        tiles([&](const auto&, C(&)[N], C(&)[N], C part_u, C part_ud) {
            sum_u += part_u;
            sum_ud += part_ud;
        });
        if (p.mean) sum_u = r.reduce(sum_u, C(0), Add{});
        s.finish(p, sum_u, r.reduce(sum_ud, C(0), Add{}));
        tiles([&](const auto& piece, C(&u)[N], C(&d)[N], C, C) {
            write_gradient(p, piece, element<T>(p.gx, at[0]), s, u, d);
        });
    });
}

}  // namespace nk::cuda
