// What the CPU's convolutions have in common: register tiles, places in memory, taps of a weight.
#pragma once

#include <array>
#include <vector>

#include "convolution/problem.h"
#include "cpu/table.h"
#include "plan/arithmetic.h"

namespace nk::convolution {

using plan::ceil_div;
using plan::round_up;

inline constexpr int64_t kGathered = 512 << 10;  // bytes of a gathered block: half of the second cache
inline constexpr int64_t kPackedRows = 16;       // of a weight at a time: as many streams
inline constexpr int64_t kDepthBytes = 1536;     // of k that is summed in registers

// Windows read from padded rows of the image: bytes of such rows, and of sums, at a time; few channels, which always
// are; positions of a row that fill a tile's registers well enough; bytes of a pixel from which on each tap is a run by
// itself.
inline constexpr int64_t kDirectBytes = 192 << 10, kDirectChannels = 8, kDirectWidth = 6, kDirectPixel = 512;
inline constexpr int64_t kDirectTurned = 96;  // terms of a sum that is turned
inline constexpr int64_t kDirectFew = 512;    // positions of several images that meet a panel of the weight

struct Level {
    const cpu::MatmulTile& tile;
    int mr, nv;  // of the register tile
    int64_t depth;
    int64_t units(int64_t k) const { return ceil_div(k, int64_t{tile.group}); }
    int64_t nr() const { return int64_t{nv} * tile.lanes; }
};

inline const cpu::ConvolutionEntries& entries() { return cpu::table().convolution; }

// Tiles of few rows and many columns read less of the first cache for each multiplication; they need the columns.
inline Level level_of(DType dtype, int64_t columns) {
    const int d = static_cast<int>(dtype), mr = entries().wide_mr[d], nv = entries().wide_nv[d];
    const cpu::MatmulTile& t = cpu::table().matmul.tile[d];
    const bool wide = nv > 0 && columns >= int64_t{nv} * t.lanes;
    return {t, wide ? mr : t.mr, wide ? nv : t.nv, kDepthBytes / t.unit * t.group};
}

inline char* element(const TensorView& t, int64_t offset) {
    return static_cast<char*>(t.data) + offset * size_of(t.dtype);
}

// Pieces of one piece of memory, each on a line of its own.
struct Layout {
    int64_t bytes = 0;
    int64_t add(int64_t more) {
        const int64_t at = bytes;
        bytes += round_up(more, int64_t{64}) + 64;
        return at;
    }
};

// Offsets of the taps of a weight with five dims.
inline std::vector<int64_t> tap_offsets(const TensorView& w, const std::array<std::vector<int64_t>, kSpatial>& taps) {
    std::vector<int64_t> made;
    for (const int64_t a : taps[0])
        for (const int64_t b : taps[1])
            for (const int64_t c : taps[2]) made.push_back(a * w.stride[2] + b * w.stride[3] + c * w.stride[4]);
    return made;
}
inline std::vector<int64_t> all_of(int64_t n) {
    std::vector<int64_t> made(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) made[static_cast<size_t>(i)] = i;
    return made;
}
inline std::vector<int64_t> tap_offsets(const TensorView& w) {
    return tap_offsets(w, {all_of(w.shape[2]), all_of(w.shape[3]), all_of(w.shape[4])});
}

inline bool is_dense(const TensorView& t) {
    return (t.shape[3] == 1 || t.stride[3] == t.shape[4] * t.stride[4]) &&
           (t.shape[2] == 1 || t.stride[2] == t.shape[3] * t.shape[4] * t.stride[4]);
}

// Pixels that read themselves, and images whose pixels lie evenly: one axis instead of three.
inline bool is_pointwise(const Geometry& g) {
    for (int k = 0; k < kSpatial; ++k)
        if (g.kernel[k] != 1 || g.stride[k] != 1 || g.pad[k] != 0 || g.in[k] != g.out[k]) return false;
    return true;
}

inline TensorView flat(TensorView t) {
    t.shape[4] = t.shape[2] * t.shape[3] * t.shape[4], t.shape[2] = t.shape[3] = 1;
    return t;
}

}  // namespace nk::convolution
