// A cache of keys by numbers that nobody has looked at: rows are written to it, and pages are found to read.
#include "kernels/cuda/attention/append.cu"

using namespace nk;

// cache [3 pages, 8 rows, 4 columns], rows [5 sequences, 4 columns], a new one for each; table [5, 2].
extern "C" __global__ void unchecked_numbers(float* cache, float* rows, const int64_t* lengths, const int64_t* table,
                                             int64_t* read) {
    cuda::AttentionAppendParams p;
    p.cache.data = cache, p.cache.batch[0] = 32, p.cache.row = 4, p.cache.column = 1;
    p.from.data = rows, p.from.batch[0] = 4, p.from.row = 4, p.from.column = 1;
    p.lengths = {lengths, 0, 1, 1};
    p.pages.table = {table, 2, 1, 1};
    p.pages.page = {8, 1, 3}, p.pages.count = 3;
    p.batches = 5, p.rows = 1, p.size = 4, p.capacity = 16;
    cuda::attention_append<DType::f32>(p);
    if (threadIdx.x < 10) read[threadIdx.x] = cuda::page_of(p.pages, threadIdx.x / 2, threadIdx.x % 2 * 8).page;
}
