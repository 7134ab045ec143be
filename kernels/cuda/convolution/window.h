// Walks over the windows of a convolution (tile/walk.h): all that tells its products from matmul's.
//
// k runs over (tap, channel), channels first. Each thread keeps where the windows of its rows begin and at which taps
// they lie outside of the source; going on to the next tile is a sum, and a carry where a tap ends. Where k is the
// pixels the same is looked up in a table instead, one tile ahead.
#pragma once

#include "../tile/walk.h"
#include "place.h"

namespace nk::cuda {

// The taps of a row that are needed: one bit for each dim.
struct Tap {
    int u[kSpatial];

    __device__ __forceinline__ Tap(const WindowParams& p, uint32_t tap) {
        const uint32_t rest = divide(tap, p.dim[2].taps), first = divide(rest, p.dim[1].taps);
        u[0] = static_cast<int>(first);
        u[1] = static_cast<int>(rest - first * p.dim[1].taps.value);
        u[2] = static_cast<int>(tap - rest * p.dim[2].taps.value);
    }
    __device__ __forceinline__ bool exists(const WindowParams& p) const {
        return static_cast<uint32_t>(u[0]) < p.dim[0].taps.value;
    }
    __device__ __forceinline__ uint32_t bits(const WindowParams& p, bool mapped) const {
        if (!exists(p)) return kNever;
        if (mapped) return kExists;
        return kExists | 1u << u[2] | 1u << (p.dim[2].taps.value + u[1]) |
               1u << (p.dim[2].taps.value + p.dim[1].taps.value + u[0]);
    }
    __device__ __forceinline__ int offset(const WindowParams& p) const {  // in units
        int units = 0;
#pragma unroll
        for (int d = 0; d < kSpatial; ++d) units += u[d] * p.dim[d].tap_step * p.dim[d].source;
        return units;
    }
};

// The window of pixel m. With a padding mode there is nothing outside, and the offset is that of the pixel read.
template <bool Mapped>
__device__ __forceinline__ WindowRow window_row(const WindowParams& p, int64_t m, const Tap& tap) {
    if (m >= p.pixels) return {0, ~0u};
    uint32_t rest = static_cast<uint32_t>(m), outside = kNever;
    int64_t offset = 0;
    int bit = 0;
#pragma unroll
    for (int d = kSpatial - 1; d >= 0; --d) {
        const WindowDim& dim = p.dim[d];
        const uint32_t next = divide(rest, dim.pixels);
        const int j = static_cast<int>(rest - next * dim.pixels.value);
        int place = dim.begin + j * dim.step;
        rest = next;
        if constexpr (Mapped) {
            place = static_cast<int>(pixel_at(place + tap.u[d] * dim.tap_step, dim.size, p.mode));
        } else {
#pragma unroll 1
            for (int u = 0, at = place; u < static_cast<int>(dim.taps.value); ++u, at += dim.tap_step, ++bit)
                outside |= static_cast<uint32_t>(static_cast<uint32_t>(at) >= static_cast<uint32_t>(dim.size)) << bit;
        }
        offset += int64_t{place} * dim.source;
    }
    return {static_cast<int32_t>(offset + rest * p.source_image), outside};
}

// [Outer pixels][K of (tap, channel)], in units of `UnitBytes` of the same tap. Mapped: with a padding mode, for which
// each tap has its own pixels.
template <bool Mapped, int Outer, int K, int ElementBytes, int UnitBytes, int RowStep>
class WindowWalk : public tile::Holes {
    static constexpr int kRows = Outer / RowStep;

  public:
    struct Params {
        const WindowParams& p;
        const char* source;
        int64_t m0, k0;
        int tiles;
    };
    using Cursor = int;  // number of the row
    static constexpr bool kUnrolled = true;

    __device__ __forceinline__ WindowWalk(const Params& a, int row, int column)
        : p_(a.p), m_(static_cast<int>(a.m0) + row), tiles_(a.tiles) {
        const uint32_t k = static_cast<uint32_t>(a.k0 + column);
        tap_ = divide(k, p_.depth);
        c_ = static_cast<int>(k - tap_ * p_.depth.value);
        const Tap tap(p_, tap_);
        here_ = a.source + c_ * ElementBytes + (Mapped ? 0 : int64_t{tap.offset(p_)} * UnitBytes);
        need_ = tap.bits(p_, Mapped);
        find_rows(tap.exists(p_) ? tap : Tap(p_, 0));
    }
    __device__ __forceinline__ int whole() const { return tiles_; }
    __device__ __forceinline__ int tiles() const { return tiles_; }
    __device__ __forceinline__ Cursor begin() const { return 0; }
    __device__ __forceinline__ void down(Cursor& i) const { ++i; }
    __device__ __forceinline__ const char* address(Cursor i) const {
        return here_ + int64_t{row_[i].offset} * UnitBytes;
    }
    __device__ __forceinline__ bool exists(Cursor i) const { return (row_[i].outside & need_) == 0; }
    __device__ __forceinline__ void advance() {
        c_ += K, here_ += K * ElementBytes;
        if (c_ >= static_cast<int>(p_.depth.value)) carry();
    }

  private:
    __device__ __forceinline__ void find_rows(const Tap& tap) {
#pragma unroll
        for (int i = 0; i < kRows; ++i) row_[i] = window_row<Mapped>(p_, m_ + i * RowStep, tap);
    }
    // On to the tap that the chunk belongs to now.
    __device__ __forceinline__ void carry() {
        const uint32_t taps = divide(static_cast<uint32_t>(c_), p_.depth);
        const int channels = static_cast<int>(taps * p_.depth.value);
        const Tap former(p_, tap_), tap(p_, tap_ + taps);
        tap_ += taps, c_ -= channels, here_ -= int64_t{channels} * ElementBytes;
        need_ = tap.bits(p_, Mapped);
        if constexpr (!Mapped)
            here_ += int64_t{tap.offset(p_) - former.offset(p_)} * UnitBytes;
        else if (tap.exists(p_))
            find_rows(tap);
    }

    const WindowParams& p_;
    const char* here_;      // the chunk, from where a window begins
    WindowRow row_[kRows];  // where the windows begin
    uint32_t need_;         // bits of the tap that the chunk belongs to
    uint32_t tap_;
    int c_;  // its channel
    int m_, tiles_;
};

// [K pixels][Outer of (tap, channel)]: a thread stays with one tap and looks the pixels up.
template <int Outer, int K, int ElementBytes, int UnitBytes, int RowStep>
class PixelWalk : public tile::Holes {
    static constexpr int kRows = K / RowStep;

  public:
    struct Params {
        const WindowParams& p;
        const char* source;
        int64_t n0, k0;
        int tiles;
    };
    using Cursor = int;
    static constexpr bool kUnrolled = true;

    __device__ __forceinline__ PixelWalk(const Params& a, int row, int column) : p_(a.p), tiles_(a.tiles) {
        const WindowParams& p = a.p;
        const uint32_t n = static_cast<uint32_t>(a.n0 + column), number = divide(n, p.depth);
        const Tap tap(p, number);
        need_ = tap.bits(p, p.mode != kZeros);
        const int units = static_cast<int>(n - number * p.depth.value) * ElementBytes / UnitBytes;
        source_ = a.source + (int64_t{units} + (p.mode == kZeros ? tap.offset(p) : 0)) * UnitBytes;
        table_ = p.table + (p.mode != kZeros && tap.exists(p) ? number * p.table_rows : 0) + a.k0 + row;
        look_up();
    }
    __device__ __forceinline__ int whole() const { return tiles_; }
    __device__ __forceinline__ int tiles() const { return tiles_; }
    __device__ __forceinline__ Cursor begin() const { return 0; }
    __device__ __forceinline__ void down(Cursor& i) const { ++i; }
    __device__ __forceinline__ const char* address(Cursor i) const {
        return source_ + int64_t{row_[i].offset} * p_.unit;
    }
    __device__ __forceinline__ bool exists(Cursor i) const { return (row_[i].outside & need_) == 0; }
    __device__ __forceinline__ void advance() { table_ += K, look_up(); }

  private:
    __device__ __forceinline__ void look_up() {
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
            const uint2 row = *reinterpret_cast<const uint2*>(table_ + i * RowStep);
            row_[i] = {static_cast<int32_t>(row.x), row.y};
        }
    }

    const WindowParams& p_;
    const char* source_;
    const WindowRow* table_;
    WindowRow row_[kRows];  // of the tile to come
    uint32_t need_;
    int tiles_;
};

}  // namespace nk::cuda
