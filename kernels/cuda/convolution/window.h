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
    __device__ __forceinline__ uint32_t bits(const WindowParams& p) const {
        if (!exists(p)) return kNever;
        if (p.mode != kZeros) return kExists;
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
        if (p.mode != kZeros) {
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

// [Outer pixels][K of (tap, channel)], in units of `UnitBytes` of the same tap.
template <int Outer, int K, int ElementBytes, int UnitBytes, int RowStep>
class WindowWalk : public tile::Holes {
    static constexpr int kRows = Outer / RowStep;
    static constexpr int kUnits = K * ElementBytes / UnitBytes;  // of a tile along k

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
        : p_(a.p), source_(a.source), m_(static_cast<int>(a.m0) + row), tiles_(a.tiles), tap_(a.p, 0) {
        const uint32_t k = static_cast<uint32_t>(a.k0 + column), tap = divide(k, p_.depth);
        c_ = static_cast<int>(k - tap * p_.depth.value);
        tap_ = Tap(p_, tap);
        need_ = tap_.bits(p_);
        offset_ = c_ * ElementBytes / UnitBytes + (p_.mode == kZeros ? tap_.offset(p_) : 0);
        find_rows();
    }
    __device__ __forceinline__ int whole() const { return tiles_; }
    __device__ __forceinline__ int tiles() const { return tiles_; }
    __device__ __forceinline__ Cursor begin() const { return 0; }
    __device__ __forceinline__ void down(Cursor& i) const { ++i; }
    __device__ __forceinline__ const char* address(Cursor i) const { return at_[i] + int64_t{offset_} * UnitBytes; }
    __device__ __forceinline__ bool exists(Cursor i) const { return (outside_[i] & need_) == 0; }
    __device__ __forceinline__ void advance() {
        c_ += K, offset_ += kUnits;
        if (c_ >= static_cast<int>(p_.depth.value)) carry();
    }

  private:
    __device__ __forceinline__ void find_rows() {
        if (!tap_.exists(p_) && p_.mode != kZeros) return;
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
            const WindowRow row = window_row(p_, m_ + i * RowStep, tap_);
            at_[i] = source_ + int64_t{row.offset} * UnitBytes;
            outside_[i] = row.outside;
        }
    }
    __device__ __forceinline__ void carry() {
#pragma unroll 1
        do {
            c_ -= static_cast<int>(p_.depth.value);
            int moved = 2;
            if (++tap_.u[2] == static_cast<int>(p_.dim[2].taps.value)) {
                tap_.u[2] = 0, moved = 1;
                if (++tap_.u[1] == static_cast<int>(p_.dim[1].taps.value)) tap_.u[1] = 0, ++tap_.u[0], moved = 0;
            }
            offset_ += moved == 2 ? p_.carry[2] : moved == 1 ? p_.carry[1] : p_.carry[0];
        } while (c_ >= static_cast<int>(p_.depth.value));
        need_ = tap_.bits(p_);
        if (p_.mode != kZeros) find_rows();
    }

    const WindowParams& p_;
    const char* source_;
    const char* at_[kRows];    // where the windows begin
    uint32_t outside_[kRows];  // see WindowRow
    uint32_t need_;            // bits of the tap that this thread's chunk belongs to
    int offset_;               // of the chunk in the windows
    int c_;                    // its channel
    int m_, tiles_;
    Tap tap_;
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

    __device__ __forceinline__ PixelWalk(const Params& a, int row, int column) : tiles_(a.tiles) {
        const WindowParams& p = a.p;
        const uint32_t n = static_cast<uint32_t>(a.n0 + column), number = divide(n, p.depth);
        const Tap tap(p, number);
        need_ = tap.bits(p);
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
        return source_ + int64_t{row_[i].offset} * UnitBytes;
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

    const char* source_;
    const WindowRow* table_;
    WindowRow row_[kRows];  // of the tile to come
    uint32_t need_;
    int tiles_;
};

}  // namespace nk::cuda
