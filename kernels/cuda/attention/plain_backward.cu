// Attention backward, the plain kernel. Probabilities come again from scores and lse, and with
//
//   dP = g v' (kept by dropout),  dS = P (dP - delta)
//
// a block computes 32 rows and 128 columns of one gradient: of queries (dS k), keys (dS' q) or values (P' g), or 32 x
// 32 numbers of the bias' (dS). What shares a gradient, heads of a group or repeated parts of the bias, is added in
// order.
#include "../tile/kernel.h"
#include "plain.h"

namespace nk::cuda {

template <DType T>
struct PlainBackward {
    using Number = compute_t<T>;
    const AttentionBackwardParams& p;
    PlainShared<T>& shared;
    int row, lane;
    Number sum[kPlainRows][kPlainBlocks] = {};

    __device__ __forceinline__ PlainBackward(const AttentionBackwardParams& params, PlainShared<T>& memory)
        : p(params), shared(memory), row(threadIdx.x / kWarp * kPlainRows), lane(threadIdx.x % kWarp) {}

    // Adds what the pairs of 32 queries from q0 on and 32 keys from k0 on contribute.
    __device__ __forceinline__ void add(int64_t q0, int64_t k0, int64_t first_column) {
        const AttentionPlace& place = shared.place;
        const HeadScores<T>& scores = shared.scores;
        const int64_t kv_head = place.head / p.group;
        const PlainLimits rows_q = plain_limits(q0, place.queries), rows_k = plain_limits(k0, place.keys);
        const memory_t<T>* const q = element<T>(p.query.data, place.of_queries(p.query) + q0 * p.query.row);
        const memory_t<T>* const g = element<T>(p.g.data, place.of_queries(p.g) + q0 * p.g.row);
        const memory_t<T>* const k = element<T>(p.key.data, place.of_keys(p.key, kv_head) + k0 * p.key.row);
        const memory_t<T>* const v = element<T>(p.value.data, place.of_keys(p.value, kv_head) + k0 * p.value.row);
        Number s[kPlainRows] = {}, gp[kPlainRows] = {};
        plain_dots<T>(s, shared.a, shared.b, q, p.query, rows_q, k, p.key, rows_k, p.size);
        if (p.role != kGradValue)
            plain_dots<T>(gp, shared.a, shared.b, g, p.g, rows_q, v, p.value, rows_k, p.value_size);
#pragma unroll
        for (int m = 0; m < kPlainRows; ++m) {
            const int64_t query = q0 + row + m, key = k0 + lane;
            Number weight = 0;
            if (scores.sees(scores.range(query), query, key)) {
                const Number lse = static_cast<const Number*>(p.lse.data)[place.of_queries(p.lse) + query * p.lse.row];
                const Number delta = static_cast<const Number*>(p.delta)[place.row_number(p) + query];
                Number slack;
                const Number score = scores.score(s[m], query, key, slack);
                const Number share = lse == minus_infinity<Number>() ? Number(0) : math::exp(score - lse);
                if (share != 0) {
                    const Number kept = scores.kept(query, key);
                    const Number gs = share * ((kept != 0 ? gp[m] * kept : Number(0)) - delta);
                    weight = p.role == kGradValue ? share * kept : gs;
                    if (p.role == kGradQuery || p.role == kGradKey) weight = gs * slack * scores.scale;
                }
            }
            if (p.role == kGradBias)
                sum[m][0] += weight;
            else if (p.role == kGradQuery)
                shared.w[lane][row + m] = weight;
            else
                shared.w[row + m][lane] = weight;
        }
        if (p.role == kGradBias) return;
        const bool of_key = p.role == kGradQuery, of_query = p.role == kGradKey;
        plain_weighted<T>(sum, shared.w, shared.b,
                          of_key     ? k
                          : of_query ? q
                                     : g,
                          of_key     ? p.key.row
                          : of_query ? p.query.row
                                     : p.g.row,
                          of_key     ? p.key.column
                          : of_query ? p.query.column
                                     : p.g.column,
                          of_key ? rows_k : rows_q, first_column, p.role == kGradValue ? p.value_size : p.size);
    }

    __device__ __forceinline__ void put(const AttentionOperand& x, int64_t offset, int64_t first_row, int64_t rows,
                                        int64_t first_column, int64_t columns) const {
#pragma unroll
        for (int m = 0; m < kPlainRows; ++m)
#pragma unroll
            for (int block = 0; block < kPlainBlocks; ++block) {
                const int64_t r = first_row + row + m, c = first_column + block * kPlainTile + lane;
                if (r < rows && c < columns) store<T>(x.data, offset + r * x.row + c * x.column, sum[m][block]);
            }
    }

    // Goes through all pairs that share the gradient: those of one head, of the group's, or of repeated parts of a
    // bias.
    __device__ __forceinline__ void add_all(int64_t batch, int64_t head, int64_t first, int64_t chunk) {
        const bool bias = p.role == kGradBias, packed = p.cu_queries != nullptr, of_query = p.role == kGradQuery;
        const AttentionPlace mine(p, bias && packed ? 0 : batch, head);
        const AttentionOperand& x = p.g_bias;
        int64_t heads = 1;  // to add, from `begin` on
        if (bias) heads = x.head == 0 ? p.heads : 1;
        if (!bias && !of_query) heads = p.group;
        const int64_t head_begin = bias || of_query ? head : head * p.group;
#pragma unroll 1
        for (int64_t b = bias ? 0 : batch; b < (bias ? p.batches : batch + 1); ++b) {
            AttentionPlace place(p, b, head_begin);
            bool same = true;
#pragma unroll
            for (int i = 0; i < kAttentionBatchDims; ++i) same = same && (x.batch[i] == 0 || place.at[i] == mine.at[i]);
            if (bias && !same) continue;
            int64_t q_begin = first, q_end = first + 1, k_begin = first, k_end = first + 1;
            if (of_query) {  // ranges move on with rows
                const int64_t last = min(first + kPlainTile, place.queries) - 1;
                k_begin = visible_keys(p.rules, first, place.queries, place.keys).begin / kPlainTile * kPlainTile;
                k_end = first < place.queries ? visible_keys(p.rules, last, place.queries, place.keys).end : 0;
            } else if (!bias) {
                const int64_t last = min(first + kPlainTile, place.keys) - 1;
                q_begin = seeing_queries(p.rules, first, place.queries, place.keys).begin / kPlainTile * kPlainTile;
                q_end = first < place.keys ? seeing_queries(p.rules, last, place.queries, place.keys).end : 0;
            } else {
                q_begin = first - place.first_query, k_begin = chunk * kPlainTile - place.first_key;
                q_end = q_begin + p.bias_rows, k_end = k_begin + p.bias_columns;
            }
#pragma unroll 1
            for (; place.head < head_begin + heads; ++place.head) {
                __syncthreads();
                if (threadIdx.x == 0) {
                    shared.place = place;
                    shared.scores = HeadScores<T>(p, place);
                }
                __syncthreads();
#pragma unroll 1
                for (int64_t q0 = q_begin; q0 < q_end; q0 += kPlainTile)
#pragma unroll 1
                    for (int64_t k0 = k_begin; k0 < k_end; k0 += kPlainTile)
                        if (q0 > -kPlainTile && q0 < place.queries && k0 > -kPlainTile && k0 < place.keys)
                            add(q0, k0, chunk * kPlainColumns);
            }
        }
        if (bias) {
            put_bias(mine, first, chunk * kPlainTile);
        } else {
            const AttentionOperand& to = of_query ? p.g_query : p.role == kGradKey ? p.g_key : p.g_value;
            put(to, mine.offset(to, head, of_query ? mine.first_query : mine.first_key), first,
                of_query ? mine.queries : mine.keys, chunk * kPlainColumns,
                p.role == kGradValue ? p.value_size : p.size);
        }
    }

    // Whether this batch entry and head are the first that have their part of the bias; they add up the others.
    __device__ __forceinline__ bool leads(int64_t batch, int64_t head) const {
        const bool packed = p.cu_queries != nullptr;
        const AttentionPlace mine(p, packed ? 0 : batch, head);
        bool first = p.g_bias.head != 0 || head == 0;
#pragma unroll
        for (int i = 0; i < kAttentionBatchDims; ++i) first = first && (p.g_bias.batch[i] != 0 || mine.at[i] == 0);
        return first && (!packed || batch == 0);
    }

    __device__ __forceinline__ void put_bias(const AttentionPlace& mine, int64_t r0, int64_t c0) {
        const AttentionOperand& x = p.g_bias;
        if (x.column == 0)
#pragma unroll
            for (int m = 0; m < kPlainRows; ++m) sum[m][0] = reduce_warp(sum[m][0], Add{});
        const int64_t columns = x.column == 0 ? 1 : p.keys;
        int64_t rows = p.queries;
        if (x.row == 0) {
            rows = 1;
#pragma unroll
            for (int m = 0; m < kPlainRows; ++m) shared.w[row + m][lane] = sum[m][0];
            __syncthreads();
            Number all = 0;
#pragma unroll 1
            for (int i = 0; i < kPlainTile; ++i) all += shared.w[i][lane];
            sum[0][0] = all;  // of the first warp, whose row alone is stored
        }
        const int64_t offset = mine.offset(x, mine.head);
#pragma unroll
        for (int m = 0; m < kPlainRows; ++m) {
            const int64_t r = r0 + row + m, c = c0 + lane;
            if (r >= rows || c >= columns) continue;
            const int64_t at = offset + r * x.row + c * x.column;
            if (p.bias_f32)
                static_cast<float*>(x.data)[at] = static_cast<float>(sum[m][0]);
            else
                store<T>(x.data, at, sum[m][0]);
        }
    }
};

template <DType T>
__device__ __forceinline__ void plain_attention_backward(const AttentionBackwardParams& p) {
    __shared__ PlainShared<T> shared;
    PlainBackward<T> work(p, shared);
    int64_t index = blockIdx.x;
    const int64_t chunk = index % p.chunks;  // of columns; for the bias a tile of them
    index /= p.chunks;
    const int64_t first = index % p.tiles * kPlainTile;
    index /= p.tiles;
    const int64_t heads = p.role == kGradKey || p.role == kGradValue ? p.heads / p.group : p.heads;
    if (p.role == kGradBias && !work.leads(index / heads, index % heads)) return;
    work.add_all(index / heads, index % heads, first, chunk);
}

}  // namespace nk::cuda

NK_KERNELS(attention_plain_backward, nk::cuda::kPlainThreads, 1, nk::cuda::AttentionBackwardParams,
           nk::cuda::plain_attention_backward<T>(p))
