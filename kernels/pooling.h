// Which elements a pooling window holds, and which windows hold an element: the same on the host, on the CPU and in
// CUDA.
//
//   plain        window o holds begin = o * stride - padding, begin + dilation, ... : `kernel` of them, those that
//   exist adaptive     window o holds floor(o * in / out) .. ceil((o + 1) * in / out) - 1 fractional   window o holds
//   `kernel` neighbours from start(o) on, which depends on a random number of each plane
//
// An average divides by what of its window lies in the input and its padding, or in the input alone.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define NK_POOLING_FN __host__ __device__ __forceinline__
#else
#define NK_POOLING_FN inline
#endif

namespace nk {

enum class Windows : int32_t { plain = 0, adaptive = 1, fractional = 2 };

struct PoolDim {
    Windows windows = Windows::plain;
    int64_t in = 1, out = 1;
    int64_t kernel = 1, stride = 1, padding = 0, dilation = 1;
};

struct PoolRange {
    int64_t begin, end;  // of a window: begin, begin + dilation, ..., all below end
};

// a / b of numbers that are not negative; a division in 64 bits takes ten times as long on a GPU.
NK_POOLING_FN int64_t pool_quotient(int64_t a, int64_t b) {
    return ((a | b) >> 32) == 0 ? static_cast<int64_t>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b)) : a / b;
}

// Of plain and adaptive windows.
NK_POOLING_FN PoolRange pool_window(const PoolDim& d, int64_t o) {
    if (d.windows == Windows::adaptive)
        return {pool_quotient(o * d.in, d.out), pool_quotient((o + 1) * d.in + d.out - 1, d.out)};
    PoolRange r = {o * d.stride - d.padding, o * d.stride - d.padding + (d.kernel - 1) * d.dilation + 1};
    if (r.begin < 0) r.begin += pool_quotient(-r.begin + d.dilation - 1, d.dilation) * d.dilation;
    if (r.end > d.in) r.end = d.in;
    return r;
}

// What an average divides by in this dim.
NK_POOLING_FN int64_t pool_count(const PoolDim& d, int64_t o, bool include_pad) {
    if (d.windows == Windows::plain && include_pad) {
        const int64_t begin = o * d.stride - d.padding, end = begin + d.kernel, last = d.in + d.padding;
        return (end < last ? end : last) - begin;
    }
    const PoolRange r = pool_window(d, o);
    return r.end - r.begin;
}

// The windows that may hold element i: all that do are among them. A fractional one begins less than two elements from
// o * (in - kernel) / (out - 1), but for what its arithmetic rounds off in 16 bits.
NK_POOLING_FN PoolRange pool_holders(const PoolDim& d, int64_t i) {
    if (d.windows == Windows::adaptive)
        return {pool_quotient(i * d.out, d.in), pool_quotient((i + 1) * d.out + d.in - 1, d.in)};
    if (d.windows == Windows::fractional) {
        const int64_t room = d.in - d.kernel, gaps = d.out - 1, about = 2 + d.in / 32;
        if (room == 0 || gaps == 0) return {0, d.out};
        const int64_t least = i - d.kernel - about, begin = least > 0 ? pool_quotient(least * gaps, room) : 0;
        const int64_t end = pool_quotient((i + about) * gaps, room) + 2;
        return {begin < d.out ? begin : d.out, end < d.out ? end : d.out};
    }
    const int64_t reach = (d.kernel - 1) * d.dilation, at = i + d.padding;
    const int64_t begin = at > reach ? pool_quotient(at - reach + d.stride - 1, d.stride) : 0;
    const int64_t end = pool_quotient(at, d.stride) + 1;
    return {begin, end < d.out ? end : d.out};
}

// The start of a fractional window by the random number of its plane (Graham 2014). `round` rounds to the input's type,
// in which torch computes it.
template <class S, class Round>
NK_POOLING_FN int64_t fractional_start(const PoolDim& d, int64_t o, S sample, Round round) {
    if (o == d.out - 1) return d.in - d.kernel;
    const S alpha = round(round(static_cast<S>(d.in - d.kernel)) / round(static_cast<S>(d.out - 1)));
    const S at = round(round(round(static_cast<S>(o)) + sample) * alpha);
    return static_cast<int64_t>(at) - static_cast<int64_t>(round(sample * alpha));
}

}  // namespace nk
