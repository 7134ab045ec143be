// The plain scheme (plain.h) for rows that share keys, found through a cache's table of pages if there is one, and for
// parts of the keys: 32 rows of one head of keys, and 128 columns of the result.
#include "../tile/kernel.h"
#include "plain.h"
#include "split.h"

namespace nk::cuda {

template <DType T>
struct PlainSplitShared {
    PlainMatrix<compute_t<T>> a, b, w;
    SplitPlace at;
    HeadScores<T> scores;
    int64_t query_begins[kPlainTile], key_begins[kPlainTile], value_begins[kPlainTile];  // of rows of the tiles
};

// Brings 32 rows and columns as [column][row], or [row][column] when turned, zeros where nothing exists.
template <DType T, bool Turned, class Number>
__device__ __forceinline__ void plain_load_rows(PlainMatrix<Number>& to, const memory_t<T>* from,
                                                const int64_t (&begins)[kPlainTile], int64_t column_step,
                                                PlainLimits rows, PlainLimits columns) {
    const bool along_columns = column_step == 1;
    const int fast = threadIdx.x % kPlainTile;
#pragma unroll 1
    for (int i = threadIdx.x / kPlainTile; i < kPlainTile; i += kPlainThreads / kPlainTile) {
        const int row = along_columns ? i : fast, column = along_columns ? fast : i;
        Number& place = Turned ? to[row][column] : to[column][row];
        place = row < rows.end && column < columns.end ? to_compute<T>(from[begins[row] + column * column_step])
                                                       : Number(0);
    }
}

template <DType T>
__device__ __forceinline__ void plain_attention_split(const AttentionSplitParams& p) {
    using Number = compute_t<T>;
    __shared__ PlainSplitShared<T> shared;
    const int64_t first_column = blockIdx.y * kPlainColumns;
    if (threadIdx.x == 0) {
        shared.at = SplitPlace(p, kPlainTile);
        shared.scores = HeadScores<T>(p, shared.at.place);
    }
    __syncthreads();
    const SplitPlace& at = shared.at;
    const AttentionPlace& place = at.place;
    const HeadScores<T>& scores = shared.scores;
    const int row = threadIdx.x / kWarp * kPlainRows, lane = threadIdx.x % kWarp, queries = static_cast<int>(p.queries);
    const int64_t kv_head = place.head / p.group;
    const memory_t<T>* const q = element<T>(p.query.data, 0);
    const memory_t<T>* const k = element<T>(p.key.data, place.of_keys(p.key, kv_head));
    const memory_t<T>* const v = element<T>(p.value.data, place.of_keys(p.value, kv_head));
    const PlainLimits rows_q = plain_limits(at.first_row, p.rows);
    if (threadIdx.x < rows_q.end)
        shared.query_begins[threadIdx.x] = at.of_row(p.query, at.first_row + threadIdx.x, queries);

    KeyRange range[kPlainRows];
    Number top[kPlainRows], total[kPlainRows] = {}, slope[kPlainRows], o[kPlainRows][kPlainBlocks] = {};
#pragma unroll
    for (int m = 0; m < kPlainRows; ++m) {
        const int r = at.first_row + row + m;
        const bool exists = r < p.rows;
        range[m] = exists ? scores.range(r % queries) : KeyRange{0, 0};
        slope[m] = exists ? slope_of<Number>(p, place, r / queries) : Number(0);
        top[m] = minus_infinity<Number>();
    }
    const int begin = static_cast<int>(scores.range(at.first_query).begin);
    const int end = static_cast<int>(scores.range(at.last_query).end);
    const SplitTiles part(begin, end, kPlainTile, at.part, static_cast<int>(p.parts));
#pragma unroll 1
    for (int k0 = part.first, left = part.count; left > 0; k0 += kPlainTile, --left) {
        const PlainLimits rows_k = plain_limits(k0, end);
        __syncthreads();
        if (threadIdx.x < rows_k.end) {
            const PageOf of = page_of(p.pages, place.batch, static_cast<uint32_t>(k0 + threadIdx.x));
            shared.key_begins[threadIdx.x] = of.page * p.key_page + of.row * p.key.row;
            shared.value_begins[threadIdx.x] = of.page * p.value_page + of.row * p.value.row;
        }
        __syncthreads();
        Number s[kPlainRows] = {};
#pragma unroll 1
        for (int64_t c = 0; c < p.size; c += kPlainTile) {
            const PlainLimits columns = plain_limits(c, p.size);
            plain_load_rows<T, false>(shared.a, q + c * p.query.column, shared.query_begins, p.query.column, rows_q,
                                      columns);
            plain_load_rows<T, false>(shared.b, k + c * p.key.column, shared.key_begins, p.key.column, rows_k, columns);
            __syncthreads();
#pragma unroll 4
            for (int i = 0; i < kPlainTile; ++i)
#pragma unroll
                for (int m = 0; m < kPlainRows; ++m) s[m] = fma(shared.a[i][row + m], shared.b[i][lane], s[m]);
            __syncthreads();
        }
#pragma unroll
        for (int m = 0; m < kPlainRows; ++m) {
            const int key = k0 + lane;
            HeadScores<T> mine = scores;
            mine.slope = slope[m];
            Number slack;
            s[m] = scores.sees(range[m], 0, key) ? mine.score(s[m], (at.first_row + row + m) % queries, key, slack)
                                                 : minus_infinity<Number>();
            shared.w[lane][row + m] = plain_power(s[m], top[m], total[m], o[m]);
        }
#pragma unroll
        for (int block = 0; block < kPlainBlocks; ++block) {
            const int64_t column = first_column + block * kPlainTile;
            if (column >= p.value_size) break;
            __syncthreads();
            plain_load_rows<T, true>(shared.b, v + column * p.value.column, shared.value_begins, p.value.column, rows_k,
                                     plain_limits(column, p.value_size));
            __syncthreads();
#pragma unroll 4
            for (int i = 0; i < kPlainTile; ++i)
#pragma unroll
                for (int m = 0; m < kPlainRows; ++m) {
                    const Number share = shared.w[i][row + m];
                    if (share != 0) o[m][block] = fma(share, shared.b[i][lane], o[m][block]);
                }
        }
    }
#pragma unroll
    for (int m = 0; m < kPlainRows; ++m) {
        const int r = at.first_row + row + m;
        if (r >= p.rows) continue;
        const int64_t number = at.number(p, r) + at.part;
#pragma unroll
        for (int block = 0; block < kPlainBlocks; ++block) {
            const int64_t column = first_column + block * kPlainTile + lane;
            if (column < p.value_size) static_cast<Number*>(p.partial)[number * p.pitch + column] = o[m][block];
        }
        if (lane == 0 && first_column == 0) {
            static_cast<Number*>(p.statistics)[2 * number] = top[m];
            static_cast<Number*>(p.statistics)[2 * number + 1] = total[m];
        }
    }
}

}  // namespace nk::cuda

NK_KERNELS(attention_split_plain, nk::cuda::kPlainThreads, 1, nk::cuda::AttentionSplitParams,
           nk::cuda::plain_attention_split<T>(p))
