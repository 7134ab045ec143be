// What attention's kernels are told: plain data, written by csrc/attention/cuda.cpp.
#pragma once

#include <stdint.h>

#include "../../attention.h"
#include "../tile/index.h"

namespace nk::cuda {

inline constexpr int kAttentionBatchDims = 4;
inline constexpr int kPlainTile = 32;      // queries and keys of a tile of the plain kernels
inline constexpr int kPlainColumns = 128;  // of a result that a block of theirs computes
inline constexpr int kPlainThreads = 256;
inline constexpr int kSplitParts = 128;      // of the keys, at most
inline constexpr int kCombineThreads = 128;  // a warp for each row
inline constexpr int kRowThreads = 256;      // of the kernels that go through rows, a warp for each

// [batches..., heads, rows, columns]; steps in elements, 0 where it is repeated.
struct AttentionOperand {
    void* data = nullptr;  // null: there is none
    int64_t batch[kAttentionBatchDims] = {};
    int64_t head = 0, row = 0, column = 0;
};

struct AttentionParams {
    AttentionRules rules;
    AttentionOperand query, key, value, mask, bias, slopes, sink, output, lse;
    int64_t batch_size[kAttentionBatchDims] = {1, 1, 1, 1};  // outermost first
    int64_t batches = 1;                                     // or sequences
    int64_t heads = 1, group = 1;                            // group: heads of queries for each of keys
    int64_t queries = 0, keys = 0, size = 0, value_size = 0;
    int32_t features = 0;  // whether scores need more than a positive scale and the rules
    int32_t drops = 0;     // whether there is dropout
    int64_t tiles = 0;     // of a head: of queries, or of keys
    int64_t chunks = 1;    // of the result's columns, for the plain kernels
    const void *cu_queries = nullptr, *cu_keys = nullptr;  // null: not packed
    const uint64_t* seed = nullptr;                        // of dropout, and the offset of its numbers
    int32_t wide_cu_queries = 0, wide_cu_keys = 0;         // whether they are of 64 bits
    int32_t bias_f32 = 0;                                  // whether the bias of 16-bit operands is of 32
    int32_t slopes_f64 = 0;
    int32_t q_access = 0, k_access = 0, v_access = 0, g_access = 0;            // bytes at once, see tile/walk.h
    int32_t wide_out = 0, wide_g_query = 0, wide_g_key = 0, wide_g_value = 0;  // 16 bytes may be stored at once
};

// Numbers of 32 or 64 bits.
struct AttentionNumbers {
    const void* data = nullptr;  // null: there are none
    int64_t batch = 0, step = 0;
    int32_t wide = 0;
};

// Where the rows of a cache are: a batch entry's page i holds rows i * page.value and following, and is page
// table[batch, i] of those that there are. Without a table a batch entry's rows are one page.
struct AttentionPages {
    AttentionNumbers table;
    Divisor page;
    int64_t count = 0;
};

// The queries of all heads that share keys are the rows of one tile, and the keys may be computed in parts: row r of a
// head of keys is query r % queries of its query head r / queries.
struct AttentionSplitParams : AttentionParams {
    int64_t rows = 0;
    int64_t parts = 1;
    void *partial = nullptr,
         *statistics = nullptr;  // [batches, heads of keys, rows, parts], of `pitch` numbers and of 2
    int64_t pitch = 0;
    AttentionNumbers lengths;  // of a cache: the keys of each batch entry, less `appended`
    int64_t appended = 0;
    AttentionPages pages;
    int64_t key_page = 0, value_page = 0;  // elements from page to page
};

struct AttentionAppendParams {
    AttentionOperand cache, from;  // batch[0]: from batch entry to batch entry, or from page to page
    AttentionNumbers lengths;
    AttentionPages pages;
    int64_t batches = 1, heads = 1, rows = 0, size = 0, capacity = 0;
    int32_t wide = 0;  // 16 bytes may be moved at once
};

// What a block of the plain backward computes.
enum AttentionRole : int32_t { kGradQuery, kGradKey, kGradValue, kGradBias };

struct AttentionBackwardParams : AttentionParams {
    AttentionOperand g, g_lse;
    void* delta = nullptr;  // [batches, heads, queries]: rowsum(g * output) - g_lse
    AttentionOperand g_query, g_key, g_value, g_bias, g_sink;
    int32_t role = 0;
    int64_t bias_rows = 0, bias_columns = 0;  // that a block of the bias' gradient goes through: a tile's, or all
};

// Rows of a packed tensor that belong to no sequence.
struct AttentionClearParams {
    AttentionOperand x;
    const void* cu = nullptr;
    int32_t wide_cu = 0;
    int64_t sequences = 0, rows = 0, columns = 0;
    double value = 0;
};

}  // namespace nk::cuda
