// What attention's launchers on CUDA share: from a problem to parameters and a launch.
#pragma once

#include <algorithm>
#include <limits>
#include <string>

#include "attention/plan_cuda.h"
#include "attention/problem.h"
#include "context/context.h"
#include "driver/kernel.h"
#include "kernels/cuda/attention/params.h"
#include "tensor/check.h"

namespace nk::attention {

// The batch dims of a problem are its last ones here.
inline cuda::AttentionOperand operand(const Problem& p, const Operand& x) {
    cuda::AttentionOperand o;
    o.data = x.data, o.head = x.head, o.row = x.row, o.column = x.column;
    std::copy(x.batch, x.batch + p.batch_dims, o.batch + kBatchDims - p.batch_dims);
    return o;
}

inline void fill(const Problem& p, cuda::AttentionParams& to) {
    to.rules = p.rules, to.drops = p.rules.dropout != 0;
    to.query = operand(p, p.query), to.key = operand(p, p.key), to.value = operand(p, p.value);
    to.mask = operand(p, p.mask), to.bias = operand(p, p.bias), to.slopes = operand(p, p.slopes);
    to.sink = operand(p, p.sink), to.output = operand(p, p.output), to.lse = operand(p, p.lse);
    std::copy(p.batch_size, p.batch_size + p.batch_dims, to.batch_size + kBatchDims - p.batch_dims);
    to.batches = p.batches, to.heads = p.heads, to.group = p.group();
    to.queries = p.queries, to.keys = p.keys, to.size = p.size, to.value_size = p.value_size;
    if (p.cu_queries != nullptr) {
        to.cu_queries = p.cu_queries->data, to.cu_keys = p.cu_keys->data;
        to.wide_cu_queries = p.cu_queries->dtype == DType::i64, to.wide_cu_keys = p.cu_keys->dtype == DType::i64;
    }
    if (p.seed != nullptr) to.seed = static_cast<const uint64_t*>(p.seed->data);
    to.bias_f32 = p.bias && p.bias.dtype == DType::f32 && p.dtype != DType::f32;
    to.slopes_f64 = p.slopes && p.slopes.dtype == DType::f64;
}

inline std::string typed(const char* kernel, DType t) { return concat(kernel, "_", cuda::short_name(t)); }

// `work` says what a block does, for the trace; `columns` of blocks are the grid's second dimension.
template <class Of, class Params>
void launch(const char* op, const char* fatbin, const std::string& kernel, int64_t blocks, unsigned threads,
            const Of& p, const Params& params, const std::string& work, int shared = 0, unsigned columns = 1) {
    if (blocks == 0) return;
    if (blocks > std::numeric_limits<int32_t>::max())
        fail_runtime(op, "argument query would take ", blocks, " blocks, expected at most ",
                     std::numeric_limits<int32_t>::max());
    if (trace::active()) trace::record({op, "cuda", kernel, concat(work, ", grid ", blocks), ""});
    driver::Launch l{op, fatbin, kernel.c_str()};
    l.grid[0] = static_cast<unsigned>(blocks);
    l.grid[1] = columns;
    l.block[0] = threads;
    l.shared = static_cast<unsigned>(shared);
    l.device = p.device;
    l.stream = current_stream(driver::titled(op), p.device);
    driver::launch(l, params);
}

inline int access_of(const cuda::AttentionOperand& x) {
    return plan::access_of(x.data, {x.batch[0], x.batch[1], x.batch[2], x.batch[3], x.head, x.row}, x.column);
}

// Whether attention that is no cache takes the kernels for few queries.
bool splits(const Problem& p);
void forward_split(const Problem& p);

}  // namespace nk::attention
