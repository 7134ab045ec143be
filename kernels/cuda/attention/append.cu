// New rows go into a cache, behind those that each sequence has: a warp for each row of a head.
#include "../tile/kernel.h"
#include "../tile/reduce.h"
#include "split.h"

namespace nk::cuda {

template <DType T>
__device__ __forceinline__ void attention_append(const AttentionAppendParams& p) {
    const int64_t number = int64_t{blockIdx.x} * (kRowThreads / kWarp) + threadIdx.x / kWarp;
    if (number >= p.batches * p.heads * p.rows) return;
    const int64_t row = number % p.rows, head = number / p.rows % p.heads, batch = number / p.rows / p.heads;
    const int64_t to_row = number_of(p.lengths, 0, batch) + row;
    if (to_row < 0 || to_row >= p.capacity) return;  // the host can't read lengths without waiting
    const bool paged = p.pages.table.data != nullptr;
    const PageOf of = page_in_table(p.pages, batch, static_cast<uint32_t>(to_row));
    if (paged && (of.page < 0 || of.page >= p.pages.count)) return;  // nor pages: another's rows stay as they are
    const int64_t page = paged ? of.page : batch;
    memory_t<T>* const to =
        element<T>(p.cache.data, page * p.cache.batch[0] + head * p.cache.head + of.row * p.cache.row);
    const memory_t<T>* const from = element<T>(static_cast<const void*>(p.from.data),
                                               batch * p.from.batch[0] + head * p.from.head + row * p.from.row);
    if (p.wide) {
        const int64_t units = p.size * static_cast<int64_t>(sizeof(memory_t<T>)) / 16;
#pragma unroll 1
        for (int64_t i = threadIdx.x % kWarp; i < units; i += kWarp)
            reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
        return;
    }
#pragma unroll 1
    for (int64_t i = threadIdx.x % kWarp; i < p.size; i += kWarp) to[i * p.cache.column] = from[i * p.from.column];
}

}  // namespace nk::cuda

NK_KERNELS(attention_append, nk::cuda::kRowThreads, 2, nk::cuda::AttentionAppendParams,
           nk::cuda::attention_append<T>(p))
