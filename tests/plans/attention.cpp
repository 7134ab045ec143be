// The plan of attention's split kernels, for tests/test_cuda_attention_cache.py.
#include "attention/plan_cuda.h"

using namespace nk;

// Of a shape and a device: rows and keys of a tile (0 for the plain kernel), its warps, shared memory, tiles of rows,
// parts of the keys.
extern "C" void split_plan(int dtype, int64_t entries, int64_t rows, int64_t keys, int64_t size, int64_t value_size,
                           int64_t asked, int multiprocessors, int shared_per_block, int shared_per_multiprocessor,
                           int64_t* to) {
    plan::SplitShape s;
    s.dtype = static_cast<DType>(dtype), s.entries = entries, s.rows = rows, s.keys = keys, s.size = size;
    s.value_size = value_size, s.asked = asked, s.multiprocessors = multiprocessors;
    s.shared_per_block = shared_per_block, s.shared_per_multiprocessor = shared_per_multiprocessor;
    const plan::SplitPlan p = plan::split_plan(s);
    to[0] = p.tile ? p.tile->rows : 0, to[1] = p.tile ? p.tile->keys : 0, to[2] = p.tile ? p.tile->threads / 32 : 0;
    to[3] = p.tile ? p.tile->shared : 0, to[4] = p.row_tiles, to[5] = p.parts;
}
