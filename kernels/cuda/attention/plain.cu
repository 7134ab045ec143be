// Attention forward, the plain kernel: a block computes 32 queries of one head and 128 columns of the result.
#include "../tile/kernel.h"
#include "plain.h"

namespace nk::cuda {

template <DType T>
__device__ __forceinline__ void plain_attention(const AttentionParams& p) {
    using Number = compute_t<T>;
    __shared__ PlainShared<T> shared;
    int64_t index = blockIdx.x;
    const int64_t first_column = index % p.chunks * kPlainColumns;
    index /= p.chunks;
    const int64_t q0 = index % p.tiles * kPlainTile;
    index /= p.tiles;
    if (threadIdx.x == 0) {
        shared.place = AttentionPlace(p, index / p.heads, index % p.heads);
        shared.scores = HeadScores<T>(p, shared.place);
    }
    __syncthreads();
    const AttentionPlace& place = shared.place;
    const HeadScores<T>& scores = shared.scores;
    if (q0 >= place.queries) return;
    const int row = threadIdx.x / kWarp * kPlainRows, lane = threadIdx.x % kWarp;
    const int64_t kv_head = place.head / p.group;
    const memory_t<T>* const q = element<T>(p.query.data, place.of_queries(p.query) + q0 * p.query.row);
    const memory_t<T>* const k = element<T>(p.key.data, place.of_keys(p.key, kv_head));
    const memory_t<T>* const v = element<T>(p.value.data, place.of_keys(p.value, kv_head));

    KeyRange range[kPlainRows];
#pragma unroll
    for (int m = 0; m < kPlainRows; ++m) range[m] = scores.range(q0 + row + m);
    // ranges move on with the queries
    const int64_t last = q0 + kPlainTile < place.queries ? q0 + kPlainTile - 1 : place.queries - 1;
    const int64_t begin = scores.range(q0).begin, end = scores.range(last).end;

    Number top[kPlainRows], total[kPlainRows], o[kPlainRows][kPlainBlocks] = {};
    Number sink = minus_infinity<Number>();
    if (p.sink.data != nullptr) sink = load<T>(p.sink.data, place.offset(p.sink, place.head));
#pragma unroll
    for (int m = 0; m < kPlainRows; ++m) {
        top[m] = sink;
        total[m] = sink == minus_infinity<Number>() ? Number(0) : sink - sink + 1;  // NaN stays
    }
#pragma unroll 1
    for (int64_t k0 = begin / kPlainTile * kPlainTile; k0 < end; k0 += kPlainTile) {
        const PlainLimits rows_q = plain_limits(q0, place.queries), rows_k = plain_limits(k0, place.keys);
        Number s[kPlainRows] = {};
        plain_dots<T>(s, shared.a, shared.b, q, p.query, rows_q, k + k0 * p.key.row, p.key, rows_k, p.size);
#pragma unroll
        for (int m = 0; m < kPlainRows; ++m) {
            const int64_t query = q0 + row + m, key = k0 + lane;
            Number slack;
            s[m] = scores.sees(range[m], query, key) ? scores.score(s[m], query, key, slack) : minus_infinity<Number>();
            const Number share = plain_power(s[m], top[m], total[m], o[m]);
            shared.w[lane][row + m] = share != 0 ? share * scores.kept(query, key) : Number(0);
        }
        plain_weighted<T>(o, shared.w, shared.b, v + k0 * p.value.row, p.value.row, p.value.column, rows_k,
                          first_column, p.value_size);
    }
#pragma unroll
    for (int m = 0; m < kPlainRows; ++m) {
        const int64_t query = q0 + row + m;
        if (query >= place.queries) continue;
#pragma unroll
        for (int block = 0; block < kPlainBlocks; ++block) {
            const int64_t column = first_column + block * kPlainTile + lane;
            if (column >= p.value_size) continue;
            store<T>(p.output.data, place.of_queries(p.output) + query * p.output.row + column * p.output.column,
                     total[m] == 0 ? Number(0) : o[m][block] / total[m]);
        }
        if (p.lse.data == nullptr || lane != 0 || first_column != 0) continue;
        const Number from = top[m] == minus_infinity<Number>() ? Number(0) : top[m];
        static_cast<Number*>(p.lse.data)[place.of_queries(p.lse) + query * p.lse.row] =
            total[m] == 0 ? minus_infinity<Number>() : math::log(total[m]) + from;
    }
}

}  // namespace nk::cuda

NK_KERNELS(attention_plain, nk::cuda::kPlainThreads, 1, nk::cuda::AttentionParams, nk::cuda::plain_attention<T>(p))
