// The CUDA plan of attention: which kernel computes a problem, and with which tile. Pure functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/cuda/attention/params.h"
#include "kernels/cuda/attention/tiles.h"
#include "kernels/dtype.h"

namespace nk::plan {

// A kernel on the tensor cores; `size` is what its tiles hold of q, k and v.
struct AttentionTile {
    int size, queries, keys, threads, shared;
};

// What a plan has to know of a problem and the device.
struct AttentionShape {
    DType dtype;
    int64_t queries, keys, size, value_size;
    int shared_per_block;
};

// Tensor cores take 16-bit types with sizes up to 256, in numbers of rows that fit 32 bits; null: the plain kernels do.
template <int N>
const AttentionTile* tile_of(const AttentionTile (&tiles)[N], const AttentionShape& s) {
    if (size_of(s.dtype) != 2 || std::max(s.queries, s.keys) >= int64_t{1} << 30) return nullptr;
    for (const AttentionTile& t : tiles)
        if (std::max(s.size, s.value_size) <= t.size) return t.shared <= s.shared_per_block ? &t : nullptr;
    return nullptr;
}
inline const AttentionTile* forward_tile(const AttentionShape& s) {
#define NK_ROW(d, queries, keys, ms) {d, queries, keys, queries / (16 * ms) * 32, 2 * d * (queries + 4 * keys)},
    static constexpr AttentionTile tiles[] = {NK_ATTENTION_FORWARD_TILES(NK_ROW)};
#undef NK_ROW
    return tile_of(tiles, s);
}
// `queries` are the rows whose gradient a block computes, `keys` those it goes through, whichever they are.
inline const AttentionTile* backward_tile(const AttentionShape& s) {
#define NK_ROW(d, rows, tile, split) {d, rows, tile, rows / 16 * split * 32, 2 * d * (2 * rows + 4 * tile)},
    static constexpr AttentionTile tiles[] = {NK_ATTENTION_BACKWARD_TILES(NK_ROW)};
#undef NK_ROW
    return tile_of(tiles, s);
}

// Bytes that may be taken at once of rows that begin at multiples of `steps` (in elements of 2 bytes) from `data`: 16,
// 8, 4, or 0 for single elements; see kernels/cuda/tile/walk.h.
inline int access_of(const void* data, std::initializer_list<int64_t> steps, int64_t column) {
    if (column != 1) return 0;
    uint64_t bits = reinterpret_cast<uintptr_t>(data) | 16;
    for (const int64_t step : steps) bits |= static_cast<uint64_t>(step) * 2;
    const int bytes = static_cast<int>(bits & -bits);
    return bytes >= 4 ? bytes : 0;
}

}  // namespace nk::plan
