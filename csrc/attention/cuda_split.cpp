// Attention on CUDA of few queries, or to a cache: rows that share keys are one tile, and keys are computed in parts.
#include "attention/cuda.h"
#include "plan/arithmetic.h"
#include "tensor/scratch.h"

namespace nk::attention {

namespace {

using cuda::AttentionAppendParams;
using cuda::AttentionNumbers;
using cuda::AttentionPages;
using cuda::AttentionSplitParams;
using plan::ceil_div;

constexpr int64_t kMostRows = int64_t{1} << 30;  // of a cache: their numbers fit 32 bits

AttentionNumbers numbers(const TensorView& t) {
    AttentionNumbers n;
    n.data = t.data, n.wide = t.dtype == DType::i64;
    if (t.ndim == 1) n.step = t.stride[0];
    if (t.ndim == 2) n.batch = t.stride[0], n.step = t.stride[1];
    return n;
}

AttentionPages pages_of(const char* op, const TensorView* table, int64_t page_size, int64_t pages, int64_t rows) {
    if (rows >= kMostRows || page_size >= kMostRows)
        fail_runtime(op, "a cache has room for ", std::max(rows, page_size), " rows, expected fewer than ", kMostRows);
    AttentionPages p;
    if (table == nullptr) return p;
    p.table = numbers(*table), p.page = cuda::make_divisor(static_cast<uint32_t>(page_size)), p.count = pages;
    return p;
}

plan::SplitShape split_shape(const Problem& p) {
    const driver::DeviceInfo& info = driver::device_info(p.device.kind == Device::cuda ? p.device.index : 0);
    plan::SplitShape s;
    s.dtype = p.dtype;
    s.entries = p.batches * p.kv_heads, s.rows = p.group() * p.queries, s.keys = p.keys;
    if (p.rules.left < p.keys && p.rules.right < p.keys)
        s.keys = std::min(s.keys, p.rules.left + p.rules.right + p.queries);
    s.size = p.size, s.value_size = p.value_size, s.asked = p.splits;
    s.multiprocessors = info.multiprocessors, s.shared_per_block = info.shared_per_block;
    s.shared_per_multiprocessor = info.shared_per_multiprocessor;
    return s;
}

}  // namespace

bool splits(const Problem& p) {
    return p.queries > 0 && p.queries <= plan::kFewQueries && p.keys < kMostRows && p.cu_queries == nullptr &&
           !p.mask && !p.bias && p.rules.dropout == 0;
}

void forward_split(const Problem& p) {
    const char* const op = p.lengths != nullptr ? "attention_of_cache" : "attention";
    AttentionSplitParams a;
    fill(p, a);
    a.rows = p.group() * p.queries;
    a.pages = pages_of(op, p.table, p.page_size, p.pages, p.keys);
    a.key_page = p.key_page, a.value_page = p.value_page;
    if (p.lengths != nullptr) a.lengths = numbers(*p.lengths), a.appended = p.appended;
    const plan::SplitPlan plan = plan::split_plan(split_shape(p));
    a.tiles = plan.row_tiles, a.parts = plan.parts;
    const int64_t entries = p.batches * p.kv_heads, blocks = entries * a.tiles * a.parts;

    Scratch partial, statistics;
    const bool combines = plan.tile == nullptr || a.parts > 1;
    if (combines) {
        TensorView like;
        like.data = p.query.data, like.dtype = p.dtype, like.device = p.device, like.ndim = 0;
        const int64_t number = p.dtype == DType::f64 ? 8 : 4, results = entries * a.rows * a.parts;
        a.pitch = ceil_div(p.value_size, int64_t{8}) * 8;
        partial = allocate_scratch(like, std::max<int64_t>(results * a.pitch, 1) * number);
        statistics = allocate_scratch(like, results * 2 * number);
        a.partial = partial.data, a.statistics = statistics.data;
    }
    const std::string parts = concat(a.parts, a.parts == 1 ? " part" : " parts", " of the keys");
    if (plan.tile != nullptr) {
        const plan::SplitTile& t = *plan.tile;
        a.features = p.slopes || p.rules.softcap != 0 || !(p.rules.scale > 0);
        a.q_access = access_of(a.query);
        const auto with_page = [](const cuda::AttentionOperand& x, int64_t page) {
            cuda::AttentionOperand of = x;
            if (page != 0) of.batch[0] = page;
            return access_of(of);
        };
        a.k_access = with_page(a.key, p.key_page), a.v_access = with_page(a.value, p.value_page);
        a.wide_out = access_of(a.output) >= 4 && p.value_size % 2 == 0;
        const std::string element = cuda::short_name(p.dtype);
        launch(op, ("attention_mma_split_" + element).c_str(),
               concat("attention_split_", element, "_", t.size, "_", t.row_warps), blocks,
               static_cast<unsigned>(t.threads), p, a,
               concat("tile ", t.rows, "x", t.keys, "x", t.size, ", ", t.threads / 32, " warps, ", parts), t.shared);
    } else {
        launch(op, "attention_plain_split", typed("attention_split_plain", p.dtype), blocks, cuda::kPlainThreads, p, a,
               concat("tile ", cuda::kPlainTile, "x", cuda::kPlainTile, ", ", parts), 0,
               static_cast<unsigned>(std::max<int64_t>(1, ceil_div(p.value_size, int64_t{cuda::kPlainColumns}))));
    }
    if (combines)
        launch(op, "attention_combine", typed("attention_combine", p.dtype),
               ceil_div(entries * a.rows, int64_t{cuda::kCombineThreads / 32}), cuda::kCombineThreads, p, a, parts);
}

void append_cuda(const AppendProblem& p) {
    constexpr const char* op = "append_to_cache";
    AttentionAppendParams a;
    const auto operand = [](const Operand& x) {
        cuda::AttentionOperand o;
        o.data = x.data, o.batch[0] = x.batch[0], o.head = x.head, o.row = x.row, o.column = x.column;
        return o;
    };
    a.cache = operand(p.cache), a.from = operand(p.from);
    a.lengths = numbers(*p.lengths);
    a.pages = pages_of(op, p.table, p.page_size, p.pages, p.capacity);
    a.batches = p.batches, a.heads = p.heads, a.rows = p.rows, a.size = p.size, a.capacity = p.capacity;
    const int bytes = size_of(p.dtype);
    const auto lies_in_units = [&](const cuda::AttentionOperand& x) {
        const uint64_t all = static_cast<uint64_t>((x.batch[0] | x.head | x.row) * bytes);
        return x.column == 1 && ((all | reinterpret_cast<uintptr_t>(x.data)) & 15) == 0;
    };
    a.wide = lies_in_units(a.cache) && lies_in_units(a.from) && p.size * bytes % 16 == 0;
    launch(op, "attention_append", typed("attention_append", p.dtype),
           ceil_div(p.batches * p.heads * p.rows, int64_t{cuda::kRowThreads / 32}), cuda::kRowThreads, p, a,
           a.wide ? "16 bytes at once" : "single elements");
}

}  // namespace nk::attention
