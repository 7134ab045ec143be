// What attention's backward needs of each row: delta = rowsum(g * output) - g_lse, the sink's gradient from it, and
// rows of packed tensors that belong to no sequence.
#include "../../math.h"
#include "../tile/kernel.h"
#include "../tile/reduce.h"
#include "place.h"

namespace nk::cuda {

inline constexpr int kRowWarps = kRowThreads / kWarp;

// A warp for each row of [batches, heads, queries].
template <DType T>
__device__ __forceinline__ void attention_delta(const AttentionBackwardParams& p) {
    using Number = compute_t<T>;
    const int64_t number = int64_t{blockIdx.x} * kRowWarps + threadIdx.x / kWarp;
    const int64_t entries = p.cu_queries != nullptr ? 1 : p.batches;
    if (number >= entries * p.heads * p.queries) return;
    const int64_t query = number % p.queries, head = number / p.queries % p.heads;
    AttentionPlace place(p, number / p.queries / p.heads, head);
    place.first_query = 0;  // rows are numbered through all sequences
    const int64_t g = place.of_queries(p.g) + query * p.g.row;
    const int64_t out = place.of_queries(p.output) + query * p.output.row;
    Number sum = 0;
#pragma unroll 1
    for (int64_t c = threadIdx.x % kWarp; c < p.value_size; c += kWarp)
        sum = fma(load<T>(p.g.data, g + c * p.g.column), load<T>(p.output.data, out + c * p.output.column), sum);
    sum = reduce_warp(sum, Add{});
    if (threadIdx.x % kWarp != 0) return;
    if (p.g_lse.data != nullptr)
        sum -= static_cast<const Number*>(p.g_lse.data)[place.of_queries(p.g_lse) + query * p.g_lse.row];
    static_cast<Number*>(p.delta)[number] = sum;
}

// A block for each head: -sum of p_sink * delta.
template <DType T>
__device__ __forceinline__ void attention_sink(const AttentionBackwardParams& p) {
    using Number = compute_t<T>;
    __shared__ Number scratch[kWarp];
    const int64_t head = blockIdx.x, entries = p.cu_queries != nullptr ? 1 : p.batches;
    Number sum = 0;
#pragma unroll 1
    for (int64_t batch = 0; batch < entries; ++batch) {
        AttentionPlace place(p, batch, head);
        place.first_query = 0;
        const Number sink = load<T>(p.sink.data, place.offset(p.sink, head));
#pragma unroll 1
        for (int64_t query = threadIdx.x; query < p.queries; query += kRowThreads) {
            const Number lse = static_cast<const Number*>(p.lse.data)[place.of_queries(p.lse) + query * p.lse.row];
            if (lse == -static_cast<Number>(INFINITY)) continue;
            sum -= math::exp(sink - lse) * static_cast<const Number*>(p.delta)[place.row_number(p) + query];
        }
    }
    sum = reduce_block(sum, scratch, Number(0), Add{});
    if (threadIdx.x == 0) store<T>(p.g_sink.data, head * p.g_sink.head, sum);
}

// A block for each head.
template <DType T>
__device__ __forceinline__ void attention_clear(const AttentionClearParams& p) {
    const int64_t begin = max(cumulative(p.cu, p.wide_cu, p.sequences), int64_t{0});
#pragma unroll 1
    for (int64_t row = begin + threadIdx.x / kWarp; row < p.rows; row += kRowWarps)
#pragma unroll 1
        for (int64_t c = threadIdx.x % kWarp; c < p.columns; c += kWarp)
            store<T>(p.x.data, blockIdx.x * p.x.head + row * p.x.row + c * p.x.column,
                     static_cast<compute_t<T>>(p.value));
}

}  // namespace nk::cuda

NK_KERNELS(attention_delta, nk::cuda::kRowThreads, 2, nk::cuda::AttentionBackwardParams,
           nk::cuda::attention_delta<T>(p))
NK_KERNELS(attention_sink, nk::cuda::kRowThreads, 2, nk::cuda::AttentionBackwardParams, nk::cuda::attention_sink<T>(p))
NK_KERNELS(attention_clear, nk::cuda::kRowThreads, 2, nk::cuda::AttentionClearParams, nk::cuda::attention_clear<T>(p))
