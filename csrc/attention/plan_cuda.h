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

// A kernel that goes through keys in parts; `rows` are all queries of all heads that share keys.
struct SplitTile {
    int size, row_warps, key_warps, keys, rows, threads, shared;
};

struct SplitShape {
    DType dtype = DType::f32;
    int64_t entries = 0;  // batch entries times heads of keys
    int64_t rows = 0, size = 0, value_size = 0;
    int64_t keys = 0;   // that a row sees, at most
    int64_t asked = 0;  // parts; 0: as many as fill the device
    int multiprocessors = 0, shared_per_block = 0, shared_per_multiprocessor = 0;
};

struct SplitPlan {
    const SplitTile* tile;  // null: the plain kernel
    int64_t row_tiles, parts;
};

inline constexpr int64_t kFewQueries = 16;      // of ordinary attention that takes these kernels
inline constexpr int kSplitStatic = 3072;       // bytes of shared memory beside the tiles, at most
inline constexpr int kSplitBlocks = 2;          // of a multiprocessor: so many hide the time of a copy
inline constexpr int64_t kSplitLeastTiles = 4;  // of a part, that its own results are little beside

// The tile of the smallest size that fits, and of those the one with the fewest rows that hold all.
inline const SplitTile* split_tile(const SplitShape& s) {
#define NK_ROW(d, rows, warps, keys) \
    {d,                              \
     rows,                           \
     warps,                          \
     keys,                           \
     16 * rows,                      \
     32 * rows * warps,              \
     std::max(2 * d * (16 * rows + 4 * keys), (warps - 1) * rows * (d / 8 + 1) * 512)},
    static constexpr SplitTile tiles[] = {NK_ATTENTION_SPLIT_TILES(NK_ROW)};
#undef NK_ROW
    if (size_of(s.dtype) != 2) return nullptr;
    const SplitTile* best = nullptr;
    for (const SplitTile& t : tiles) {
        if (std::max(s.size, s.value_size) > t.size || t.shared + kSplitStatic > s.shared_per_block) continue;
        if (best != nullptr && (t.size > best->size || best->rows >= s.rows)) break;
        best = &t;
    }
    return best;
}

// Parts of the keys: one where the blocks fill the device without, else as few as leave little of its last wave idle,
// each of some tiles.
inline SplitPlan split_plan(const SplitShape& s) {
    const SplitTile* const tile = split_tile(s);
    const int64_t rows = tile != nullptr ? tile->rows : cuda::kPlainTile;
    const int64_t keys = tile != nullptr ? tile->keys : cuda::kPlainTile;
    const int64_t row_tiles = std::max<int64_t>(1, (s.rows + rows - 1) / rows), blocks = s.entries * row_tiles;
    const int64_t key_tiles = std::max<int64_t>(1, (s.keys + keys - 1) / keys);
    const int64_t limit = std::min<int64_t>(cuda::kSplitParts, key_tiles);
    if (s.asked > 0) return {tile, row_tiles, std::min(s.asked, limit)};
    const int shared = tile != nullptr ? tile->shared + kSplitStatic : 1;
    const int64_t slots = std::max<int64_t>(
        1, int64_t{s.multiprocessors} * std::clamp(s.shared_per_multiprocessor / shared, 1, kSplitBlocks));
    const int64_t most = std::clamp<int64_t>(key_tiles / kSplitLeastTiles, 1, limit);
    const auto busy = [&](int64_t parts) {  // share of the device's time
        const int64_t all = blocks * parts, waves = (all + slots - 1) / slots;
        return waves == 0 ? 1.0 : static_cast<double>(all) / static_cast<double>(waves * slots);
    };
    double best = 0;
    for (int64_t n = 1; n <= most; ++n) best = std::max(best, busy(n));
    for (int64_t n = 1; n < most; ++n)
        if (busy(n) >= 0.85 * best) return {tile, row_tiles, n};
    return {tile, row_tiles, most};
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
