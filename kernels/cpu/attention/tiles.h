// What the host and the kernels know of attention by tiles: which memory a head takes, and how it is laid out.
#pragma once

#include "entries.h"

namespace nk::cpu {

inline constexpr int64_t kAttentionKeys = 256;      // of a block: its scores, 14 rows of them, lie in the first cache
inline constexpr int64_t kAttentionLastKeys = 320;  // that a head's only block may have
inline constexpr int64_t kAttentionTiles = 8;       // tiles of rows that pass over the keys together
inline constexpr int64_t kAttentionAway = 1024;     // bytes from row to row from which rows are packed: they would
                                                    // share sets of the caches, and lie on many pages
inline constexpr int64_t kAttentionBackwardKeys = 128;  // the same of the backward
inline constexpr int64_t kAttentionBackwardLastKeys = 224;

constexpr int64_t attention_round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Units from one packed row to the next: an odd number of lines, so that the rows of a tile fall into different sets.
constexpr int64_t attention_row(int64_t units, int64_t unit) { return ((units * unit + 63) / 64 | 1) * 64 / unit; }

// A head's keys and values as the microkernel reads them; offsets in bytes.
//   keys     panels of `wide` keys, [size][keys]: transposed
//   values   panels of `wide` columns, [keys][columns]; not there if they are read as they lie
//   unusual  a byte for each panel of keys: whether a value there is infinite or NaN
struct AttentionPacked {
    int64_t key_units, value_units;  // of one panel's length
    int64_t values, unusual, bytes;

    AttentionPacked(const AttentionTile& t, int64_t keys, int64_t size, int64_t value_size) {
        key_units = (size + t.group - 1) / t.group;
        value_units = attention_round_up(keys, t.wide) / t.group;
        values = attention_round_up(attention_round_up(keys, t.lanes) * key_units * t.unit, 64);
        unusual = values + attention_round_up(value_units * attention_round_up(value_size, t.lanes) * t.unit, 64);
        bytes = attention_round_up(unusual + keys / t.wide + 1, 64);
    }
};

// What a thread needs while it passes over the keys with up to kAttentionTiles * t.rows queries.
struct AttentionScratch {
    int64_t query_ld, output_ld;                     // units, sums
    int64_t scores, output, numbers, values, bytes;  // values: cleaned, where some are infinite or NaN

    AttentionScratch(const AttentionTile& t, int64_t size, int64_t value_size) {
        const int64_t rows = kAttentionTiles * t.rows;
        query_ld = attention_row((size + t.group - 1) / t.group, t.unit);
        output_ld = attention_round_up(value_size, t.lanes);
        scores = attention_round_up(rows * query_ld * t.unit, 64);
        output = scores + attention_round_up(t.rows * (kAttentionLastKeys + t.wide) * t.acc, 64);
        numbers = output + attention_round_up(rows * output_ld * t.acc, 64);
        values = attention_round_up(numbers + 2 * (rows + 16) * t.acc, 64);
        bytes = values + attention_round_up((kAttentionLastKeys + t.wide) * output_ld * t.unit, 64) + 64;
    }
};

// Few queries, all heads that share keys, over a share of the keys: what they have summed, and a thread's memory.
//   partial   for each row its maximum and sum, then [rows, value_ld] outputs, not yet divided
struct AttentionFew {
    int64_t rows, size_ld, value_ld;
    int64_t sums, output, partial_bytes;     // in partial
    int64_t scores, product, values, bytes;  // in scratch, which begins with the queries; values: cleaned

    AttentionFew(const AttentionTile& t, int64_t heads, int64_t queries, int64_t size, int64_t value_size) {
        rows = heads * queries;
        size_ld = attention_round_up(size, t.lanes), value_ld = attention_round_up(value_size, t.lanes);
        sums = attention_round_up(rows * t.acc, 64), output = 2 * sums;
        partial_bytes = attention_round_up(output + rows * value_ld * t.acc, 64);
        scores = attention_round_up((rows + 3) * size_ld * t.acc, 64);
        product = scores + attention_round_up((rows + 3) * kAttentionKeys * t.acc, 64);
        values = attention_round_up(product + rows * value_ld * t.acc, 64);
        bytes = attention_round_up(values + kAttentionKeys * value_ld * t.acc, 64) + 64;
    }
};

// A head's queries for the backward; offsets in bytes, lengths in units.
//   query_rows, g_rows    as broadcast rows, where they can't be read as they lie
//   query, g              panels of columns, likewise
//   numbers               for each query log2(e) * lse, and delta
struct AttentionQueries {
    int64_t query_ld, g_ld, units;
    int64_t g_rows, query, g, numbers, bytes;

    AttentionQueries(const AttentionTile& t, int64_t queries, int64_t size, int64_t value_size) {
        query_ld = attention_row((size + t.group - 1) / t.group, t.unit);
        g_ld = attention_row((value_size + t.group - 1) / t.group, t.unit);
        units = (queries + t.group - 1) / t.group;
        g_rows = attention_round_up(queries * query_ld * t.unit, 64);
        query = g_rows + attention_round_up(queries * g_ld * t.unit, 64);
        g = query + attention_round_up(units * attention_round_up(size, t.lanes) * t.unit, 64);
        numbers = g + attention_round_up(units * attention_round_up(value_size, t.lanes) * t.unit, 64);
        bytes = attention_round_up(numbers + 2 * queries * t.acc, 64);
    }
};

// A thread's memory for a block of keys in the backward.
struct AttentionBlock {
    int64_t ld, size_ld, value_ld;   // scores; sums of g_key and g_value
    int64_t key_units, value_units;  // length of a panel of keys and values, transposed
    int64_t straight_units;          // of keys, straight
    int64_t values, straight, scores, slopes, rows, p, ds, extra, g_key, g_value, bytes;

    AttentionBlock(const AttentionTile& t, int64_t size, int64_t value_size) {
        const int64_t keys = attention_round_up(kAttentionBackwardLastKeys, t.wide);
        ld = attention_row(keys, t.acc), size_ld = attention_round_up(size, t.lanes);
        value_ld = attention_round_up(value_size, t.lanes);
        key_units = (size + t.group - 1) / t.group, value_units = (value_size + t.group - 1) / t.group;
        straight_units = keys / t.group;
        int64_t at = 0;
        const auto take = [&](int64_t bytes) {
            const int64_t begin = at;
            at = attention_round_up(at + bytes, 64);
            return begin;
        };
        take(keys * key_units * t.unit);
        values = take(keys * value_units * t.unit);
        straight = take(straight_units * size_ld * t.unit);
        scores = take(t.rows * ld * t.acc);  // of a tile
        slopes = take(t.rows * ld * t.acc);  // of a tile: the gradient of its probabilities
        rows = take(t.rows * ld * t.acc);    // of a tile: that of its scores, for pairs
        p = take(kAttentionTiles * t.rows * ld * t.acc);
        ds = take(kAttentionTiles * t.rows * ld * t.acc);
        extra = take(3 * t.rows * ld * t.acc);
        g_key = take(keys * size_ld * t.acc);
        g_value = take(keys * value_ld * t.acc);
        bytes = at + 64;
    }
};

}  // namespace nk::cpu
