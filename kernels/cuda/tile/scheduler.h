// Which tile of the output, which part of k and which batch entry a block works on.
#pragma once

#include <stdint.h>

namespace nk::tile {

struct TileIndex {
    int m, n;
};

// Grouped order: `group` rows of tiles are walked column by column, so that blocks that run together share rows of A
// and columns of B in L2. A bijection of [0, tiles_m * tiles_n); the last group may have fewer rows.
__host__ __device__ inline TileIndex grouped_tile(int index, int tiles_m, int tiles_n, int group) {
    const int per_group = group * tiles_n;
    const int first = index / per_group * group;
    const int rows = tiles_m - first < group ? tiles_m - first : group;
    const int within = index % per_group;
    return {first + within % rows, within / rows};
}

// What a block computes at a time: a tile of the output of one batch entry, or the share of one part of k in it. It is
// handed down from the kernel, so that the blocks of a grid may each take one, or a few blocks all of them in turn.
struct Work {
    TileIndex tile;
    int split;
    int64_t batch;  // counted from the launch's first
};

// The grid is (tiles, splits, batches), a block takes one.
__device__ inline Work work_of_block(int tiles_m, int tiles_n, int group) {
    return {grouped_tile(blockIdx.x, tiles_m, tiles_n, group), static_cast<int>(blockIdx.y), blockIdx.z};
}

// Number `index` of them all, tiles first, then parts of k, then batch entries.
__host__ __device__ inline Work work_of(int64_t index, int tiles_m, int tiles_n, int group, int splits) {
    const int64_t tiles = int64_t{tiles_m} * tiles_n, rest = index / tiles;
    return {grouped_tile(static_cast<int>(index % tiles), tiles_m, tiles_n, group), static_cast<int>(rest % splits),
            rest / splits};
}

// The part of k that split number `split` adds up: [begin, end), empty when the splits before it took everything.
struct KRange {
    int64_t begin, end;
};
__host__ __device__ inline KRange split_range(int split, int64_t k, int64_t k_per_split) {
    const int64_t begin = split * k_per_split < k ? split * k_per_split : k;
    const int64_t end = begin + k_per_split < k ? begin + k_per_split : k;
    return {begin, end};
}

// The offset of batch entry `index` in elements; sizes are outermost first.
template <int Dims>
__host__ __device__ inline void batch_coordinates(int64_t index, const int64_t (&size)[Dims], int64_t (&at)[Dims]) {
#pragma unroll
    for (int i = Dims - 1; i >= 0; --i) {
        at[i] = index % size[i];
        index /= size[i];
    }
}
template <int Dims>
__host__ __device__ inline int64_t batch_offset(const int64_t (&at)[Dims], const int64_t (&step)[Dims]) {
    int64_t offset = 0;
#pragma unroll
    for (int i = 0; i < Dims; ++i) offset += at[i] * step[i];
    return offset;
}

}  // namespace nk::tile
