// Where the results of a convolution's product lie, and how tiles of them get there.
#pragma once

#include "../product/epilogue.h"
#include "params.h"

namespace nk::cuda {

// Pixels by channels, or channels by pixels (`ChannelsDown`), whose rows are then contiguous in images that are not
// channels_last.
template <DType T, bool ChannelsDown>
struct PixelResults {
    static constexpr bool kActivates = true;
    const WindowParams& p;
    int64_t first;  // channel of the group
    int64_t out_step, preact_step, residual_step;

    __device__ __forceinline__ PixelResults(const WindowParams& p, int64_t group) : p(p), first(group * p.channels) {
        out_step = step(p.out), preact_step = step(p.preact), residual_step = step(p.residual);
    }
    __device__ __forceinline__ memory_t<T>* out(int64_t m, int64_t n) const { return at(p.out, m, n); }
    __device__ __forceinline__ memory_t<T>* preact(int64_t m, int64_t n) const { return at(p.preact, m, n); }
    __device__ __forceinline__ const memory_t<T>* residual(int64_t m, int64_t n) const { return at(p.residual, m, n); }

    // Among all groups.
    __device__ __forceinline__ int64_t row(int64_t m) const { return ChannelsDown ? m + first : m; }
    __device__ __forceinline__ int64_t column(int64_t n) const { return ChannelsDown ? n : n + first; }
    // Of a piece that begins there.
    __device__ __forceinline__ int64_t columns(int64_t n) const { return p.n - n; }
    __device__ __forceinline__ bool at_once() const { return !ChannelsDown || p.even_pieces; }

  private:
    __device__ __forceinline__ int64_t step(const ResultsRef& r) const { return ChannelsDown ? 1 : r.channel; }
    __device__ __forceinline__ memory_t<T>* at(const ResultsRef& r, int64_t m, int64_t n) const {
        const int64_t pixel = ChannelsDown ? n : m, channel = ChannelsDown ? m : n;
        int64_t offset = channel * r.channel;
        if (p.even_rows) return element<T>(r.data, offset + pixel * r.row);
        uint32_t rest = static_cast<uint32_t>(pixel);
#pragma unroll
        for (int d = kSpatial - 1; d >= 0; --d) {
            const uint32_t next = divide(rest, p.dim[d].pixels);
            offset += static_cast<int64_t>(rest - next * p.dim[d].pixels.value) * r.pixel[d];
            rest = next;
        }
        return element<T>(r.data, offset + rest * r.image);
    }
};

// [o, (tap, c)] of a weight.
template <DType T>
struct WeightResults {
    static constexpr bool kActivates = false;
    const WindowParams& p;
    int64_t first;
    int64_t out_step, preact_step = 0, residual_step = 0;

    __device__ __forceinline__ WeightResults(const WindowParams& p, int64_t group)
        : p(p), first(group * p.m), out_step(p.out.channel) {}
    __device__ __forceinline__ memory_t<T>* out(int64_t m, int64_t n) const {
        const uint32_t tap = divide(static_cast<uint32_t>(n), p.depth);
        const uint32_t c = static_cast<uint32_t>(n) - tap * p.depth.value;
        const uint32_t rest = divide(tap, p.dim[2].taps), depth = divide(rest, p.dim[1].taps);
        return element<T>(p.out.data, m * p.out.image + c * p.out.channel + depth * p.out.pixel[0] +
                                          (rest - depth * p.dim[1].taps.value) * p.out.pixel[1] +
                                          (tap - rest * p.dim[2].taps.value) * p.out.pixel[2]);
    }
    __device__ __forceinline__ memory_t<T>* preact(int64_t, int64_t) const { return nullptr; }
    __device__ __forceinline__ const memory_t<T>* residual(int64_t, int64_t) const { return nullptr; }

    __device__ __forceinline__ int64_t row(int64_t m) const { return m + first; }
    __device__ __forceinline__ int64_t column(int64_t n) const { return n; }
    __device__ __forceinline__ int64_t columns(int64_t n) const {
        if (!at_once()) return p.n - n;
        const uint32_t tap = divide(static_cast<uint32_t>(n), p.depth);
        return p.real_depth - (n - int64_t{tap} * p.depth.value);
    }
    // A piece is of one tap.
    __device__ __forceinline__ bool at_once() const { return p.depth.value % kPiece<T> == 0; }
};

// Finishes columns n .. n + kPiece - 1 of row m, both of the group.
template <DType T, class Results>
__device__ __forceinline__ void finish_piece(const WindowParams& p, const Results& results, int64_t m, int64_t n,
                                             compute_t<T> (&v)[kPiece<T>]) {
    constexpr int N = kPiece<T>;
    const int64_t left = results.columns(n);
    int count = static_cast<int>(left < N ? left : N);
    if (results.at_once()) {
        if (count > 0) finish<T, Results::kActivates>(p, results, results.row(m), results.column(n), count, v);
        return;
    }
#pragma unroll 1
    for (; count > 0; --count, ++n) {  // pixels of several rows or images
        compute_t<T> one[N] = {v[0]};
        finish<T, Results::kActivates>(p, results, results.row(m), results.column(n), 1, one);
#pragma unroll
        for (int i = 0; i + 1 < N; ++i) v[i] = v[i + 1];
    }
}

// Writes a staged tile, whose first element is (m0, n0), by the whole block.
template <DType T, int Threads, class Results, class Staging>
__device__ __forceinline__ void write_results(const WindowParams& p, const Results& results, const Staging& staging,
                                              const tile::Work& work, int64_t m0, int64_t n0) {
    using Number = compute_t<T>;
    constexpr int N = kPiece<T>, kPerRow = Staging::kColumns / N;
#pragma unroll 1
    for (int i = threadIdx.x; i < Staging::kRows * kPerRow; i += Threads) {
        const int row = i / kPerRow, column = i % kPerRow * N;
        const int64_t m = m0 + row, n = n0 + column;
        if (m >= p.m || n >= p.n) continue;
        Number v[N];
        staging.get(row, column, v);
        if (p.splits == 1 && !p.keeps_sums)
            finish_piece<T>(p, results, m, n, v);
        else
            ptx::store_16(workspace_row<Number>(p, work.split, work.batch, m) + n, v);
    }
}

}  // namespace nk::cuda
