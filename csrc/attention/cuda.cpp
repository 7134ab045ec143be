// Attention on CUDA: from a problem to launches of kernels/cuda/attention.
#include <algorithm>
#include <limits>

#include "attention/cuda.h"
#include "plan/arithmetic.h"
#include "tensor/check.h"
#include "tensor/scratch.h"

namespace nk::attention {

namespace {

using cuda::AttentionBackwardParams;
using cuda::AttentionClearParams;
using cuda::AttentionOperand;
using cuda::AttentionParams;
using plan::ceil_div;

static_assert(kBatchDims == cuda::kAttentionBatchDims);

// Rows of packed tensors behind the last sequence.
void clear(const char* op, const Problem& p, const Operand& x, const TensorView* ends, int64_t heads, int64_t rows,
           int64_t columns, double value) {
    if (!x || ends == nullptr || rows == 0 || columns == 0) return;
    AttentionClearParams c;
    c.x = operand(p, x);
    c.cu = ends->data, c.wide_cu = ends->dtype == DType::i64;
    c.sequences = p.batches, c.rows = rows, c.columns = columns;
    c.value = value;
    launch(op, "attention_rows", typed("attention_clear", x.dtype), heads, cuda::kRowThreads, p, c,
           "rows of no sequence");
}

void forward_plain(const Problem& p, AttentionParams& a) {
    a.tiles = ceil_div(p.longest_queries, int64_t{cuda::kPlainTile});
    a.chunks = std::max<int64_t>(1, ceil_div(p.value_size, int64_t{cuda::kPlainColumns}));
    launch("attention", "attention_plain", typed("attention_plain", p.dtype), p.batches * p.heads * a.tiles * a.chunks,
           cuda::kPlainThreads, p, a, concat("tile ", cuda::kPlainTile, "x", cuda::kPlainTile));
}

plan::AttentionShape shape_of(const Problem& p) {
    const driver::DeviceInfo& info = driver::device_info(p.device.kind == Device::cuda ? p.device.index : 0);
    return {p.dtype, p.queries, p.keys, p.size, p.value_size, info.shared_per_block};
}

bool is_wide(const AttentionOperand& x, int64_t columns) { return access_of(x) == 16 && columns % 8 == 0; }

std::string describe(const plan::AttentionTile& t) {
    return concat("tile ", t.queries, "x", t.keys, "x", t.size, ", ", t.threads / 32, " warps, ", t.shared,
                  " bytes shared");
}

void forward_mma(const Problem& p, AttentionParams& a, const plan::AttentionTile& t) {
    a.tiles = ceil_div(p.longest_queries, int64_t{t.queries});
    a.features = p.mask || p.bias || p.slopes || p.rules.softcap != 0 || !(p.rules.scale > 0);
    a.q_access = access_of(a.query), a.k_access = access_of(a.key), a.v_access = access_of(a.value);
    a.wide_out = is_wide(a.output, p.value_size);
    const std::string element = cuda::short_name(p.dtype);
    launch("attention", ("attention_mma_forward_" + element).c_str(), concat("attention_mma_", element, "_", t.size),
           p.batches * p.heads * a.tiles, static_cast<unsigned>(t.threads), p, a, describe(t), t.shared);
}

constexpr const char* kBackward = "attention_backward";

void backward_plain(const BackwardProblem& p, AttentionBackwardParams a, cuda::AttentionRole role, const char* what) {
    const bool of_query = role == cuda::kGradQuery, of_bias = role == cuda::kGradBias;
    int64_t rows = of_query ? p.longest_queries : p.longest_keys, heads = of_query ? p.heads : p.kv_heads;
    int64_t batches = p.batches;
    int64_t chunks = ceil_div(role == cuda::kGradValue ? p.value_size : p.size, int64_t{cuda::kPlainColumns});
    if (of_bias) {
        if (p.g_bias_numbers == 0) return;
        // without batch entries or heads there is nothing to add, and the sums are zeros
        for (int64_t& n : a.batch_size) n = std::max<int64_t>(n, 1);
        a.heads = std::max<int64_t>(a.heads, 1);
        rows = a.g_bias.row == 0 ? 1 : p.queries, heads = a.heads;
        batches = p.cu_queries != nullptr ? 1 : std::max<int64_t>(p.batches, 1);
        chunks = ceil_div(a.g_bias.column == 0 ? 1 : p.keys, int64_t{cuda::kPlainTile});
        a.bias_rows = a.g_bias.row == 0 ? p.queries : cuda::kPlainTile;
        a.bias_columns = a.g_bias.column == 0 ? p.keys : cuda::kPlainTile;
    }
    a.role = role;
    a.tiles = ceil_div(rows, int64_t{cuda::kPlainTile});
    a.chunks = chunks;
    launch(kBackward, "attention_plain_backward", typed("attention_plain_backward", p.dtype),
           batches * heads * a.tiles * a.chunks, cuda::kPlainThreads, p, a,
           concat(what, ", tile ", cuda::kPlainTile, "x", cuda::kPlainTile));
}

void backward_mma(const BackwardProblem& p, AttentionBackwardParams a, const plan::AttentionTile& t) {
    a.features = p.mask || p.bias || p.slopes || p.rules.softcap != 0 || p.rules.dropout != 0 || !(p.rules.scale > 0);
    a.q_access = access_of(a.query), a.k_access = access_of(a.key), a.v_access = access_of(a.value);
    a.g_access = access_of(a.g);
    a.wide_g_query = is_wide(a.g_query, p.size), a.wide_g_key = is_wide(a.g_key, p.size);
    a.wide_g_value = is_wide(a.g_value, p.value_size);
    const std::string element = cuda::short_name(p.dtype), fatbin = "attention_mma_backward_" + element;
    const auto run = [&](const char* kernel, int64_t rows, int64_t heads, const char* what) {
        a.tiles = ceil_div(rows, int64_t{t.queries});
        launch(kBackward, fatbin.c_str(), concat(kernel, element, "_", t.size), p.batches * heads * a.tiles,
               static_cast<unsigned>(t.threads), p, a, concat(what, ", ", describe(t)), t.shared);
    };
    if (p.g_query) run("attention_mma_backward_query_", p.longest_queries, p.heads, "gradient of query");
    if (p.g_key || p.g_value)
        run("attention_mma_backward_key_", p.longest_keys, p.kv_heads, "gradients of key and value");
}

}  // namespace

void forward_cuda(const Problem& p) {
    if (p.lengths != nullptr || splits(p)) return forward_split(p);
    AttentionParams a;
    fill(p, a);
    if (const plan::AttentionTile* tile = plan::forward_tile(shape_of(p)))
        forward_mma(p, a, *tile);
    else
        forward_plain(p, a);
    clear("attention", p, p.output, p.cu_queries, p.heads, p.queries, p.value_size, 0);
    clear("attention", p, p.lse, p.cu_queries, p.heads, p.queries, 1, -std::numeric_limits<double>::infinity());
}

void backward_cuda(const BackwardProblem& p) {
    AttentionBackwardParams a;
    fill(p, a);
    a.g = operand(p, p.g), a.g_lse = operand(p, p.g_lse);
    a.g_query = operand(p, p.g_query), a.g_key = operand(p, p.g_key), a.g_value = operand(p, p.g_value);
    a.g_bias = operand(p, p.g_bias), a.g_sink = operand(p, p.g_sink);
    const int64_t rows = (p.cu_queries != nullptr ? 1 : p.batches) * p.heads * p.queries;
    TensorView like;
    like.data = p.query.data, like.dtype = p.dtype, like.device = p.device, like.ndim = 0;
    const plan::AttentionTile* const tile = plan::backward_tile(shape_of(p));
    Scratch delta;
    if (rows > 0 && (p.g_query || p.g_key || p.g_bias || p.g_sink || tile != nullptr)) {
        delta = allocate_scratch(like, rows * (p.dtype == DType::f64 ? 8 : 4));
        a.delta = delta.data;
        launch(kBackward, "attention_rows", typed("attention_delta", p.dtype),
               ceil_div(rows, int64_t{cuda::kRowThreads / 32}), cuda::kRowThreads, p, a, "rowsum(g * output) - g_lse");
    }
    if (tile != nullptr) {
        backward_mma(p, a, *tile);
    } else {
        if (p.g_query) backward_plain(p, a, cuda::kGradQuery, "gradient of query");
        if (p.g_key) backward_plain(p, a, cuda::kGradKey, "gradient of key");
        if (p.g_value) backward_plain(p, a, cuda::kGradValue, "gradient of value");
    }
    if (p.g_bias) backward_plain(p, a, cuda::kGradBias, "gradient of bias");
    if (p.g_sink)
        launch(kBackward, "attention_rows", typed("attention_sink", p.dtype), p.heads, cuda::kRowThreads, p, a,
               "gradient of sink");
    clear(kBackward, p, p.g_query, p.cu_queries, p.heads, p.queries, p.size, 0);
    clear(kBackward, p, p.g_key, p.cu_keys, p.kv_heads, p.keys, p.size, 0);
    clear(kBackward, p, p.g_value, p.cu_keys, p.kv_heads, p.keys, p.value_size, 0);
}

}  // namespace nk::attention
