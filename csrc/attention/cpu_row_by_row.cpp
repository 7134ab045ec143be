// Attention on the CPU a query at a time: whatever the tiles do not take.
#include <vector>

#include "attention/cpu.h"
#include "call/run.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "plan/arithmetic.h"

namespace nk::attention {

namespace {

double number_of(const Operand& x, const char* at) {
    return cpu::table().attention.number[static_cast<int>(x.dtype)](at);
}
void put(const Operand& x, const cpu::HeadMatrix& to, const double* from, int64_t rows, int64_t columns) {
    cpu::table().attention.put[static_cast<int>(x.dtype)](to, from, rows, columns);
}

double work_of(const Problem& p) {  // nanoseconds
    return static_cast<double>(p.batches * p.heads) * static_cast<double>(p.queries) * static_cast<double>(p.keys) *
           static_cast<double>(p.size + p.value_size);
}

// Of a packed tensor, the rows behind the last sequence.
void fill_rest(const Problem& p, const Operand& x, const TensorView* ends, int64_t heads, int64_t rows, int64_t columns,
               double value) {
    if (!x || ends == nullptr) return;
    const std::vector<double> row(static_cast<size_t>(columns), value);
    for (int64_t h = 0; h < heads; ++h)
        for (int64_t r = number_at(*ends, p.batches); r < rows; ++r)
            put(x, matrix(p, x, 0, h, r), row.data(), 1, columns);
}

}  // namespace

Sequence sequence_of(const Problem& p, int64_t batch) {
    if (p.lengths != nullptr) return {0, p.queries, 0, number_at(*p.lengths, batch) + p.appended};
    if (p.cu_queries == nullptr) return {0, p.queries, 0, p.keys};
    const int64_t q = number_at(*p.cu_queries, batch), k = number_at(*p.cu_keys, batch);
    return {q, number_at(*p.cu_queries, batch + 1) - q, k, number_at(*p.cu_keys, batch + 1) - k};
}

char* begin_of(const Problem& p, const Operand& x, int64_t batch, int64_t head) {
    int64_t at = head * x.head;
    if (p.cu_queries == nullptr)
        for (int i = p.batch_dims - 1; i >= 0; --i) {
            at += batch % p.batch_size[i] * x.batch[i];
            batch /= p.batch_size[i];
        }
    return x.data + at * size_of(x.dtype);
}

cpu::HeadMatrix matrix(const Problem& p, const Operand& x, int64_t batch, int64_t head, int64_t first_row,
                       int64_t first_column) {
    if (!x) return {};
    char* const begin = begin_of(p, x, batch, head) + (first_row * x.row + first_column * x.column) * size_of(x.dtype);
    return {begin, x.row, x.column};
}

void fill_head(const Problem& p, int64_t batch, int64_t head, const Sequence& s, double (&numbers)[2],
               cpu::AttentionHead& to) {
    const int64_t kv = head / p.group();
    to.rules = p.rules;
    to.queries = s.queries, to.keys = s.keys, to.size = p.size, to.value_size = p.value_size;
    to.query = matrix(p, p.query, batch, head, s.first_query);
    to.key = matrix(p, p.key, batch, kv, s.first_key);
    to.value = matrix(p, p.value, batch, kv, s.first_key);
    if (p.table != nullptr)
        to.pages = {static_cast<char*>(p.table->data) + batch * p.table->stride[0] * size_of(p.table->dtype),
                    p.table->stride[1],
                    p.table->dtype == DType::i64,
                    p.page_size,
                    p.key_page,
                    p.value_page};
    to.output = matrix(p, p.output, batch, head, s.first_query);
    to.mask = matrix(p, p.mask, batch, head, s.first_query, s.first_key);
    to.bias = matrix(p, p.bias, batch, head, s.first_query, s.first_key);
    to.bias_f32 = p.bias && p.bias.dtype == DType::f32 && p.dtype != DType::f32;
    to.lse = matrix(p, p.lse, batch, head, s.first_query);
    if (p.slopes) numbers[0] = number_of(p.slopes, begin_of(p, p.slopes, batch, head)), to.slope = &numbers[0];
    if (p.sink) numbers[1] = number_of(p.sink, begin_of(p, p.sink, batch, head)), to.sink = &numbers[1];
    to.dropout_index =
        dropout_index(p.cu_queries ? 0 : batch, p.heads, head, p.queries, s.first_query, p.keys, s.first_key);
    to.dropout_row = p.keys;
}

void clear_rest(const Problem& p) {
    fill_rest(p, p.output, p.cu_queries, p.heads, p.queries, p.value_size, 0);
    fill_rest(p, p.lse, p.cu_queries, p.heads, p.queries, 1, -__builtin_inf());
}
void clear_rest(const BackwardProblem& p) {
    fill_rest(p, p.g_query, p.cu_queries, p.heads, p.queries, p.size, 0);
    fill_rest(p, p.g_key, p.cu_keys, p.kv_heads, p.keys, p.size, 0);
    fill_rest(p, p.g_value, p.cu_keys, p.kv_heads, p.keys, p.value_size, 0);
}

void forward_row_by_row(const Problem& p) {
    const auto kernel = cpu::table().attention.row_by_row[static_cast<int>(p.dtype)];
    const int64_t jobs = p.batches * p.heads;
    const int threads = cpu::max_threads();
    run_on_cpu(
        "attention", "row by row", work_of(p),
        [&] { return concat(cpu::name_of(cpu::table().level), ", ", threads, " threads"); },
        [&] {
            cpu::parallel(threads, [&](int tid, int count) {
                std::vector<double> scratch(static_cast<size_t>(3 * p.keys + 2 * p.size + p.value_size));
                for (int64_t job = 0; job < jobs; ++job) {
                    const Sequence s = sequence_of(p, job / p.heads);
                    double numbers[2];
                    cpu::AttentionHead head;
                    fill_head(p, job / p.heads, job % p.heads, s, numbers, head);
                    kernel(head, s.queries * tid / count, s.queries * (tid + 1) / count, scratch.data());
                }
            });
            clear_rest(p);
        });
}

void backward_row_by_row(const BackwardProblem& p) {
    const auto kernel = cpu::table().attention.row_by_row_backward[static_cast<int>(p.dtype)];
    // sums over heads and batch entries, where those share a bias or sink: one thread keeps their order
    const int threads = p.g_bias || p.g_sink ? 1 : cpu::max_threads();
    std::vector<double> g_bias(p.g_bias ? static_cast<size_t>(p.g_bias_numbers) : 0),
        g_sink(static_cast<size_t>(p.heads));
    run_on_cpu(
        "attention_backward", "row by row", 3 * work_of(p),
        [&] { return concat(cpu::name_of(cpu::table().level), ", ", threads, " threads"); },
        [&] {
            cpu::parallel(threads, [&](int tid, int count) {
                std::vector<double> scratch(static_cast<size_t>(3 * p.keys + 2 * p.size + p.value_size));
                std::vector<double> g_key, g_value;
                const int64_t jobs = p.batches * p.kv_heads;
                for (int64_t job = jobs * tid / count; job < jobs * (tid + 1) / count; ++job) {
                    const int64_t batch = job / p.kv_heads, kv = job % p.kv_heads;
                    const Sequence s = sequence_of(p, batch);
                    g_key.assign(static_cast<size_t>(p.g_key ? s.keys * p.size : 0), 0);
                    g_value.assign(static_cast<size_t>(p.g_value ? s.keys * p.value_size : 0), 0);
                    for (int64_t h = kv * p.group(); h < (kv + 1) * p.group(); ++h) {
                        double numbers[2];
                        cpu::AttentionHeadBackward head;
                        fill_head(p, batch, h, s, numbers, head);
                        head.g = matrix(p, p.g, batch, h, s.first_query);
                        head.g_lse = matrix(p, p.g_lse, batch, h, s.first_query);
                        head.g_query = matrix(p, p.g_query, batch, h, s.first_query);
                        head.g_key = p.g_key ? g_key.data() : nullptr;
                        head.g_value = p.g_value ? g_value.data() : nullptr;
                        head.g_sink = p.g_sink ? &g_sink[static_cast<size_t>(h)] : nullptr;
                        if (p.g_bias) {
                            const Operand& b = p.g_bias;
                            head.g_bias = g_bias.data() + (begin_of(p, b, batch, h) - b.data) / size_of(b.dtype) +
                                          s.first_query * b.row + s.first_key * b.column;
                            head.g_bias_row = b.row, head.g_bias_column = b.column;
                        }
                        kernel(head, scratch.data());
                    }
                    const auto write = [&](const Operand& x, const std::vector<double>& from, int64_t columns) {
                        if (x) put(x, matrix(p, x, batch, kv, s.first_key), from.data(), s.keys, columns);
                    };
                    write(p.g_key, g_key, p.size);
                    write(p.g_value, g_value, p.value_size);
                }
            });
            if (p.g_bias) put(p.g_bias, {p.g_bias.data, 0, 1}, g_bias.data(), 1, p.g_bias_numbers);
            if (p.g_sink) put(p.g_sink, {p.g_sink.data, 0, 1}, g_sink.data(), 1, p.heads);
            clear_rest(p);
        });
}

}  // namespace nk::attention
