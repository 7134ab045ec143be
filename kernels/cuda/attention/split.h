// Where a block of the split kernels works: which rows of which batch entry and head of keys, and which part of the
// keys.
#pragma once

#include "score.h"

namespace nk::cuda {

__device__ __forceinline__ int64_t number_of(const AttentionNumbers& x, int64_t batch, int64_t i) {
    const int64_t at = batch * x.batch + i * x.step;
    return x.wide ? static_cast<const int64_t*>(x.data)[at] : static_cast<const int32_t*>(x.data)[at];
}

struct PageOf {
    int64_t page;
    uint32_t row;  // in it
};
// As the table says, which the host can't read without waiting: it may be no page.
__device__ __forceinline__ PageOf page_in_table(const AttentionPages& pages, int64_t batch, uint32_t row) {
    if (pages.table.data == nullptr) return {0, row};
    const uint32_t i = divide(row, pages.page);
    return {number_of(pages.table, batch, i), row - i * pages.page.value};
}
// The page to read: what is none is taken for the nearest that is one.
__device__ __forceinline__ PageOf page_of(const AttentionPages& pages, int64_t batch, uint32_t row) {
    PageOf of = page_in_table(pages, batch, row);
    if (pages.table.data != nullptr) of.page = min(max(of.page, int64_t{0}), pages.count - 1);
    return of;
}

struct SplitPlace {
    AttentionPlace place;  // of the first head that shares these keys
    int64_t entry;         // batch entry and head of keys
    int part;
    int first_row, first_query, last_query;  // of the tile of rows

    SplitPlace() = default;  // for shared memory
    __device__ __forceinline__ SplitPlace(const AttentionSplitParams& p, int tile_rows) {
        const uint32_t parts = static_cast<uint32_t>(p.parts), tiles = static_cast<uint32_t>(p.tiles);
        const uint32_t kv_heads = static_cast<uint32_t>(p.heads / p.group), queries = static_cast<uint32_t>(p.queries);
        uint32_t index = blockIdx.x;
        part = index % parts, index /= parts;
        first_row = index % tiles * tile_rows, index /= tiles;
        entry = index;
        const uint32_t batch = index / kv_heads;
        place = AttentionPlace(p, batch, (index - batch * kv_heads) * p.group);
        if (p.lengths.data != nullptr)
            place.keys = min(max(number_of(p.lengths, 0, batch) + p.appended, int64_t{0}), p.keys);
        const uint32_t last_row = min(first_row + tile_rows, static_cast<int>(p.rows)) - 1;
        const uint32_t head = first_row / queries;
        first_query = 0, last_query = queries - 1;
        if (last_row / queries == head)
            first_query = first_row - head * queries, last_query = last_row - head * queries;
    }

    // Offset in elements of a row in an operand of queries.
    __device__ __forceinline__ int64_t of_row(const AttentionOperand& x, int row, int queries) const {
        const int head = row / queries;
        return place.offset(x, place.head + head, row - head * queries);
    }
    // Its number among those of all partial results, less the part.
    __device__ __forceinline__ int64_t number(const AttentionSplitParams& p, int row) const {
        return (entry * p.rows + row) * p.parts;
    }
};

// Tiles of a block's part of the keys that some of its rows see.
struct SplitTiles {
    int first, count;  // key, tiles

    __device__ __forceinline__ SplitTiles(int begin, int end, int keys, int part, int parts) {
        first = begin / keys * keys;
        const int all = end > first ? (end - first + keys - 1) / keys : 0, each = (all + parts - 1) / parts;
        count = min(max(all - part * each, 0), each);
        first += part * each * keys;
    }
};

}  // namespace nk::cuda
