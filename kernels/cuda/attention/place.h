// Where a block of attention works: which batch entry or sequence, which head, and where its operands begin there.
#pragma once

#include "../tile/element.h"
#include "params.h"

namespace nk::cuda {

__device__ __forceinline__ int64_t cumulative(const void* cu, bool wide, int64_t i) {
    return wide ? static_cast<const int64_t*>(cu)[i] : static_cast<const int32_t*>(cu)[i];
}

struct AttentionPlace {
    int64_t batch, head;
    int64_t at[kAttentionBatchDims];
    // Of this sequence: its first row in the packed tensors, and how many it has.
    int64_t first_query, first_key, queries, keys;

    AttentionPlace() = default;  // for shared memory
    __device__ __forceinline__ AttentionPlace(const AttentionParams& p, int64_t batch_index, int64_t head_index)
        : batch(batch_index), head(head_index), at{}, first_query(0), first_key(0), queries(p.queries), keys(p.keys) {
        if (p.cu_queries != nullptr) {
            // the host can't read them without waiting: what lies beyond the rows is cut off
            const auto span = [&](const void* cu, bool wide, int64_t rows, int64_t& first, int64_t& count) {
                first = min(max(cumulative(cu, wide, batch), int64_t{0}), rows);
                count = max(min(cumulative(cu, wide, batch + 1), rows) - first, int64_t{0});
            };
            span(p.cu_queries, p.wide_cu_queries, p.queries, first_query, queries);
            span(p.cu_keys, p.wide_cu_keys, p.keys, first_key, keys);
            return;
        }
        int64_t rest = batch;
#pragma unroll
        for (int i = kAttentionBatchDims - 1; i >= 0; --i) {
            if (p.batch_size[i] == 1) continue;
            const int64_t next = rest / p.batch_size[i];
            at[i] = rest - next * p.batch_size[i];
            rest = next;
        }
    }

    // Offset in elements of row `row` of this head; `packed_row` is that of the sequence's first row.
    __device__ __forceinline__ int64_t offset(const AttentionOperand& x, int64_t head_of_x, int64_t row = 0) const {
        int64_t sum = head_of_x * x.head + row * x.row;
#pragma unroll
        for (int i = 0; i < kAttentionBatchDims; ++i) sum += at[i] * x.batch[i];
        return sum;
    }
    // Of operands with a row for each query, and a row for each key.
    __device__ __forceinline__ int64_t of_queries(const AttentionOperand& x) const {
        return offset(x, head, first_query);
    }
    __device__ __forceinline__ int64_t of_keys(const AttentionOperand& x, int64_t kv_head) const {
        return offset(x, kv_head, first_key);
    }
    // Of the mask and the bias, which have a column for each key.
    __device__ __forceinline__ int64_t of_pairs(const AttentionOperand& x) const {
        return offset(x, head, first_query) + first_key * x.column;
    }
    // Of this sequence's first query in numbers of [batches, heads, queries].
    __device__ __forceinline__ int64_t row_number(const AttentionParams& p) const {
        return ((p.cu_queries != nullptr ? 0 : batch) * p.heads + head) * p.queries + first_query;
    }
};

// ALiBi's slope of the head `further` behind the place's.
template <class Number>
__device__ __forceinline__ Number slope_of(const AttentionParams& p, const AttentionPlace& place, int64_t further = 0) {
    if (p.slopes.data == nullptr) return 0;
    const int64_t i = place.offset(p.slopes, place.head + further);
    return p.slopes_f64 ? static_cast<Number>(static_cast<const double*>(p.slopes.data)[i])
                        : static_cast<Number>(static_cast<const float*>(p.slopes.data)[i]);
}

}  // namespace nk::cuda
