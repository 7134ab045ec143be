// Puts together what the split kernels made of each part of the keys: a warp for each row, parts in their order.
#include "../tile/kernel.h"
#include "../tile/reduce.h"
#include "split.h"

namespace nk::cuda {

inline constexpr int kCombineWarps = kCombineThreads / kWarp;

template <DType T>
__device__ __forceinline__ void attention_combine(const AttentionSplitParams& p) {
    using Number = compute_t<T>;
    __shared__ Number shared_weights[kCombineWarps][kSplitParts];
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, parts = static_cast<int>(p.parts);
    const int64_t kv_heads = p.heads / p.group, number = int64_t{blockIdx.x} * kCombineWarps + warp;
    if (number >= p.batches * kv_heads * p.rows) return;
    const int64_t entry = number / p.rows, row = number - entry * p.rows;
    const int64_t in_group = row / p.queries, query = row - in_group * p.queries;
    const AttentionPlace place(p, entry / kv_heads, entry % kv_heads * p.group + in_group);
    const Number* const statistics = static_cast<const Number*>(p.statistics) + number * parts * 2;
    Number* const weights = shared_weights[warp];

    const Number sink =
        p.sink.data != nullptr ? load<T>(p.sink.data, place.offset(p.sink, place.head)) : minus_infinity<Number>();
    Number top = sink;
#pragma unroll 1
    for (int i = lane; i < parts; i += kWarp) top = Max{}(top, statistics[2 * i]);
    top = reduce_warp(top, Max{});
    const Number from = top == minus_infinity<Number>() ? Number(0) : top;
    Number total = 0;
#pragma unroll 1
    for (int i = lane; i < parts; i += kWarp) {
        const Number sum = statistics[2 * i + 1];
        // a part that saw nothing left no results; one whose sum is NaN shows it
        weights[i] = sum == 0 ? Number(0) : sum == sum ? math::exp(statistics[2 * i] - from) : sum;
        total = sum == 0 ? total : fma(weights[i], sum, total);
    }
    total = reduce_warp(total, Add{});
    if (sink != minus_infinity<Number>()) total += math::exp(sink - from);
    __syncwarp();
    if (p.lse.data != nullptr && lane == 0)
        static_cast<Number*>(p.lse.data)[place.offset(p.lse, place.head, query)] =
            total == 0 ? minus_infinity<Number>() : math::log(total) + from;
    const Number* const partial = static_cast<const Number*>(p.partial) + number * parts * p.pitch;
    const int64_t to = place.offset(p.output, place.head, query);
#pragma unroll 1
    for (int64_t c = lane; c < p.value_size; c += kWarp) {
        Number sum = 0;
#pragma unroll 4
        for (int i = 0; i < parts; ++i)
            if (weights[i] != 0) sum = fma(weights[i], partial[i * p.pitch + c], sum);
        store<T>(p.output.data, to + c * p.output.column, total == 0 ? Number(0) : sum / total);
    }
}

}  // namespace nk::cuda

NK_KERNELS(attention_combine, nk::cuda::kCombineThreads, 4, nk::cuda::AttentionSplitParams,
           nk::cuda::attention_combine<T>(p))
