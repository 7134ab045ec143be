// What a cache of keys and values has to be, and the numbers that say where its rows are.
#include <algorithm>

#include "attention/cache.h"
#include "tensor/geometry.h"

namespace nk::attention {

namespace {

Operand operand_of(const TensorView& t) {
    Operand x;
    x.data = static_cast<char*>(t.data), x.dtype = t.dtype;
    x.batch[0] = t.stride[0], x.head = t.stride[1], x.row = t.stride[2], x.column = t.stride[3];
    return x;
}

void check_dims(const Call& call, const Input& t, int ndim, const char* expected) {
    if (t->ndim != ndim)
        call.fail("argument ", t.name, " has shape ", shape_string(t), ", expected ", ndim, " dimensions, ", expected);
}

template <class A>
void check_numbers(const Call& call, const A& t, const Input& like, int ndim, int64_t batches, const char* expected) {
    check_same_device(call.op, t.name, t.view, like.name, like);
    if ((t.view.dtype != DType::i32 && t.view.dtype != DType::i64) || t.view.ndim != ndim || t.view.shape[0] != batches)
        call.fail("argument ", t.name, " of shape ", shape_string(t.view), " is ", name_of(t.view.dtype),
                  ", expected int32 or int64 of shape [", batches, expected);
}

void check_table(const Call& call, const OptionalInput& table, const Input& cache, const Input& like, int64_t batches) {
    if (!table.present) return;
    check_numbers(call, table, like, 2, batches, ", pages of a sequence]");
    if (cache->shape[2] == 0)
        call.fail("argument ", cache.name, " has shape ", shape_string(cache), ", expected pages of at least one row");
}

// Rows that a batch entry has room for.
int64_t capacity_of(const OptionalInput& table, const TensorView& cache) {
    return table.present ? table.view.shape[1] * cache.shape[2] : cache.shape[2];
}

// The numbers themselves, where the host can read them; on a GPU they are its business.
void check_rows(const Call& call, const Input& lengths, const OptionalInput& table, const Input& cache, int64_t batches,
                int64_t appended, int64_t capacity) {
    if (lengths->device.kind != Device::cpu) return;
    for (int64_t b = 0; b < batches; ++b) {
        const int64_t n = number_at(lengths, b);
        if (n < 0 || n > capacity - appended)
            fail_value(call.op, "argument ", lengths.name, " has ", n, " at place ", b, ", expected lengths from 0 to ",
                       capacity - appended, ": argument ", cache.name, " of shape ", shape_string(cache),
                       " has room for ", capacity, " rows", appended > 0 ? concat(", ", appended, " of them new") : "");
        if (!table.present) continue;
        const int64_t size = cache->shape[2], pages = cache->shape[0], used = (n + appended + size - 1) / size;
        for (int64_t i = 0; i < used; ++i) {
            const int64_t page = number_at(table.view, b, i);
            if (page < 0 || page >= pages)
                fail_value(call.op, "argument ", table.name, " has ", page, " at place [", b, ", ", i,
                           "], expected pages from 0 to ", pages - 1, " of argument ", cache.name);
        }
    }
}

}  // namespace

void read_cache(const CacheArguments& a, Problem& p) {
    const Call& call = a.call;
    check_floating(a.query);
    check_dims(call, a.query, 4, "[batch, heads, new tokens, size]");
    if (a.rules.count != 5) fail_value(call.op, "argument rules has ", a.rules.count, " numbers, expected 5");
    const int64_t* const rules = a.rules.begin();
    p.dtype = a.query->dtype, p.device = a.query->device;
    p.batches = a.query->shape[0], p.heads = a.query->shape[1], p.queries = a.query->shape[2];
    p.size = a.query->shape[3];
    const bool pages = a.table.present;
    for (const Input* t : {&a.k_cache, &a.v_cache}) {
        check_kind(*t, a.query);
        check_dims(call, *t, 4, pages ? "[pages, heads, rows of a page, size]" : "[batch, heads, rows, size]");
        if (!pages && (*t)->shape[0] != p.batches)
            call.fail("argument ", t->name, " has shape ", shape_string(*t), ", expected the batch of argument ",
                      a.query.name, " of shape ", shape_string(a.query));
    }
    if (a.v_cache->shape[0] != a.k_cache->shape[0])
        call.fail("argument ", a.v_cache.name, " has shape ", shape_string(a.v_cache),
                  ", expected the pages of argument ", a.k_cache.name, " of shape ", shape_string(a.k_cache));
    p.kv_heads = a.k_cache->shape[1], p.value_size = a.v_cache->shape[3];
    check_heads(call, p, a.query, a.k_cache, a.v_cache, rules[2] != 0);
    check_numbers(call, a.lengths, a.query, 1, p.batches, "], a length for each sequence");
    check_table(call, a.table, a.k_cache, a.query, p.batches);
    p.keys = capacity_of(a.table, a.k_cache);
    p.longest_queries = p.queries, p.longest_keys = p.keys;
    p.appended = rules[3], p.splits = rules[4];
    if (p.appended < 0 || p.splits < 0)
        fail_value(call.op, "argument rules has ", std::min(p.appended, p.splits), ", expected a number from 0 on");
    read_window(p, rules[0], rules[1], a.scale);
    p.rules.bottom_right = 1, p.rules.softcap = a.softcap;
    check_slopes_and_sink(call, p, a.query, a.slopes, a.sink);
    check_rows(call, a.lengths, a.table, a.k_cache, p.batches, p.appended, p.keys);

    p.batch_dims = 1, p.batch_size[0] = p.batches;
    p.query = operand_of(a.query), p.key = operand_of(a.k_cache), p.value = operand_of(a.v_cache);
    p.lengths = &a.lengths.view;
    if (pages) {
        p.table = &a.table.view, p.page_size = a.k_cache->shape[2], p.pages = a.k_cache->shape[0];
        p.key_page = p.key.batch[0], p.value_page = p.value.batch[0];
        p.key.batch[0] = p.value.batch[0] = 0;
    }
    if (a.slopes.present) {
        p.slopes.data = static_cast<char*>(a.slopes.view.data), p.slopes.dtype = a.slopes.view.dtype;
        p.slopes.batch[0] = a.slopes.view.stride[0], p.slopes.head = a.slopes.view.stride[1];
    }
    if (a.sink.present) {
        p.sink.data = static_cast<char*>(a.sink.view.data), p.sink.dtype = a.sink.view.dtype;
        p.sink.head = a.sink.view.stride[0];
    }
}

void read_append(const Call& call, Input& cache, Input& rows, Input& lengths, OptionalInput& table, AppendProblem& p) {
    check_floating(cache);
    check_kind(rows, cache);
    check_dims(call, cache, 4, table.present ? "[pages, heads, rows of a page, size]" : "[batch, heads, rows, size]");
    check_dims(call, rows, 4, "[batch, heads, new tokens, size]");
    if (rows->shape[1] != cache->shape[1] || rows->shape[3] != cache->shape[3] ||
        (!table.present && rows->shape[0] != cache->shape[0]))
        call.fail("argument ", rows.name, " has shape ", shape_string(rows), ", expected the ",
                  table.present ? "" : "batch, ", "heads and size of argument ", cache.name, " of shape ",
                  shape_string(cache));
    p.dtype = cache->dtype, p.device = cache->device;
    p.batches = rows->shape[0], p.heads = rows->shape[1], p.rows = rows->shape[2], p.size = rows->shape[3];
    check_numbers(call, lengths, cache, 1, p.batches, "], a length for each sequence");
    check_table(call, table, cache, cache, p.batches);
    check_writable(call.op, cache.name, cache);
    check_no_overlap(call.op, cache.name, cache, rows.name, rows, false);
    p.capacity = capacity_of(table, cache);
    check_rows(call, lengths, table, cache, p.batches, p.rows, p.capacity);
    p.cache = operand_of(cache), p.from = operand_of(rows);
    p.lengths = &lengths.view;
    if (table.present) p.table = &table.view, p.page_size = cache->shape[2], p.pages = cache->shape[0];
}

}  // namespace nk::attention
