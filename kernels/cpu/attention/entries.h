// What the host calls of the attention family: a head of one batch entry at a time.
#pragma once

#include <cstdint>

#include "../../attention.h"
#include "../../dtype.h"

namespace nk::cpu {

// A matrix of one head; steps in elements.
struct HeadMatrix {
    void* data = nullptr;  // null: there is none
    int64_t row = 0, column = 0;
};

// Keys and values in pages: row j is row j % rows of page number j / rows of the table.
struct AttentionPages {
    const void* table = nullptr;  // null: there are none
    int64_t step = 0;             // from number to number
    bool wide = false;            // numbers of 64 bits, else 32
    int64_t rows = 1;             // of a page
    int64_t key = 0, value = 0;   // elements from page to page

    int64_t operator[](int64_t i) const {
        return wide ? static_cast<const int64_t*>(table)[i * step] : static_cast<const int32_t*>(table)[i * step];
    }
};

// One head of queries with its keys, in one batch entry or sequence.
struct AttentionHead {
    AttentionRules rules;
    int64_t queries = 0, keys = 0, size = 0, value_size = 0;
    HeadMatrix query, key, value, output;
    AttentionPages pages;   // if there are: key and value begin with page 0
    HeadMatrix mask;        // bool
    HeadMatrix bias;        // of the operands' type, or f32
    bool bias_f32 = false;  // that 16-bit operands have a bias of f32
    HeadMatrix lse;         // column is 0; float, or double for double operands
    const double* slope = nullptr;
    const double* sink = nullptr;
    uint64_t dropout_index = 0;  // of query 0 and key 0, see kernels/attention.h
    int64_t dropout_row = 0;     // from query to query
};

// And its gradients; those that are not wanted have no data.
struct AttentionHeadBackward : AttentionHead {
    HeadMatrix g;      // of the output
    HeadMatrix g_lse;  // as lse
    HeadMatrix g_query;
    double *g_key = nullptr, *g_value = nullptr;  // [keys, size] and [keys, value_size], added to
    double* g_bias = nullptr;                     // added to
    int64_t g_bias_row = 0, g_bias_column = 0;
    double* g_sink = nullptr;  // added to
};

// One head, with its gradients by tiles; those that are not wanted have no data.
struct AttentionGradients : AttentionHead {
    HeadMatrix g, g_lse, g_query;
    HeadMatrix g_key, g_value;  // of the head's keys: the same for all heads that share them
    bool cleaned = false;       // something that is multiplied is infinite or NaN: it is packed as 0, and made up for
    void* g_bias = nullptr;     // sums (float, or double for double), added to
    int64_t g_bias_row = 0, g_bias_column = 0;
};

// What a dtype's kernels by tiles are made for.
struct AttentionTile {
    const char *name, *isa;
    int rows, wide;  // of the microkernel's tile
    int lanes;       // sums in a vector
    int group;       // elements in a unit of a packed operand (2: pairs of bf16)
    int unit, acc;   // bytes of a unit, of a sum
    bool same_type;  // a unit is what memory holds, so that values can be read as they lie
};

struct AttentionEntries {
    AttentionTile tile[kFloatTypes];
    // A head's keys begin .. end - 1 (begin a multiple of the tile's `wide`, end as well or the last) and their values,
    // into memory as AttentionPacked has it.
    void (*pack[kFloatTypes])(const AttentionHead& head, char* packed, int64_t begin, int64_t end);
    // Queries first .. last - 1, kAttentionTiles tiles of them at most; scratch as AttentionScratch has it.
    void (*forward[kFloatTypes])(const AttentionHead& head, const char* packed, char* scratch, int64_t first,
                                 int64_t last);
    // Few queries of `count` heads that share keys begin .. end - 1 (columns next to each other), and the end of all
    // parts: `parts` partial results that lie `apart` bytes from one another.
    void (*few[kFloatTypes])(const AttentionHead* heads, int64_t count, char* partial, char* scratch, int64_t begin,
                             int64_t end);
    void (*few_finish[kFloatTypes])(const AttentionHead* heads, int64_t count, const char* partial, int64_t apart,
                                    int parts);
    // The backward. Whether anything that it multiplies is infinite or NaN: no 0 may meet that.
    bool (*unusual[kFloatTypes])(const HeadMatrix& m, int64_t rows, int64_t columns);
    // Queries begin .. end - 1 (begin a multiple of `group`), as AttentionQueries has them. Returns their share of the
    // sink's gradient.
    double (*queries[kFloatTypes])(const AttentionGradients& head, char* queries, int64_t begin, int64_t end);
    // Keys begin .. end - 1 (a multiple of `wide`, kAttentionBackwardLastKeys at most) of `heads` heads that share
    // them: writes g_key and g_value, adds to the sums of g_query, [heads, queries, AttentionBlock::size_ld]. The
    // heads' queries lie one behind the other.
    void (*keys[kFloatTypes])(const AttentionGradients* heads, int64_t count, const char* queries, void* g_query,
                              char* scratch, int64_t begin, int64_t end);
    // Rows begin .. end - 1 of g_query: the sum of `parts` sums, `apart` numbers from one to the next.
    void (*g_query[kFloatTypes])(const AttentionGradients& head, const void* sums, int64_t apart, int parts,
                                 int64_t begin, int64_t end);
    double (*number[kFloatTypes])(const void* x);
    // Rounds [rows, columns] numbers into a matrix.
    void (*put[kFloatTypes])(const HeadMatrix& to, const double* from, int64_t rows, int64_t columns);
    // Queries first .. last - 1, one by one, all sums in double: for whatever the tiles do not take. `scratch`:
    // 3 * keys + 2 * size + value_size numbers.
    void (*row_by_row[kFloatTypes])(const AttentionHead& head, int64_t first, int64_t last, double* scratch);
    void (*row_by_row_backward[kFloatTypes])(const AttentionHeadBackward& head, double* scratch);
};

}  // namespace nk::cpu
