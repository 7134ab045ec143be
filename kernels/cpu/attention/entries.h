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

// One head of queries with its keys, in one batch entry or sequence.
struct AttentionHead {
    AttentionRules rules;
    int64_t queries = 0, keys = 0, size = 0, value_size = 0;
    HeadMatrix query, key, value, output;
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

struct AttentionEntries {
    double (*number[kFloatTypes])(const void* x);
    // Rounds [rows, columns] numbers into a matrix.
    void (*put[kFloatTypes])(const HeadMatrix& to, const double* from, int64_t rows, int64_t columns);
    // Queries first .. last - 1, one by one, all sums in double: for whatever the tiles do not take. `scratch`:
    // 3 * keys + 2 * size + value_size numbers.
    void (*row_by_row[kFloatTypes])(const AttentionHead& head, int64_t first, int64_t last, double* scratch);
    void (*row_by_row_backward[kFloatTypes])(const AttentionHeadBackward& head, double* scratch);
};

}  // namespace nk::cpu
