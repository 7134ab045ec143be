// The backward of attention on the CPU by tiles: a thread has all blocks of a head's keys, or all threads share them.
#include <atomic>
#include <cstring>
#include <vector>

#include "attention/plan_cpu.h"
#include "call/run.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "plan/arithmetic.h"

namespace nk::attention {

using plan::ceil_div;
using plan::round_up;

namespace {

// Whether a number that the backward multiplies is infinite or NaN.
bool any_unusual(const BackwardProblem& p, int threads) {
    const auto unusual = cpu::table().attention.unusual[static_cast<int>(p.dtype)];
    std::atomic<bool> found{false};
    cpu::parallel(threads, [&](int thread, int count) {
        const int64_t sequences = p.cu_queries ? 1 : p.batches;
        const auto look = [&](const Operand& x, int64_t heads, int64_t rows, int64_t columns) {
            for (int64_t i = thread; i < sequences * heads && !found; i += count)
                if (unusual(matrix(p, x, i / heads, i % heads, 0), rows, columns)) found = true;
        };
        look(p.query, p.heads, p.queries, p.size);
        look(p.g, p.heads, p.queries, p.value_size);
        look(p.key, p.kv_heads, p.keys, p.size);
        look(p.value, p.kv_heads, p.keys, p.value_size);
    });
    return found;
}

// Sums of a bias that several heads have in common are made by one thread, in order.
bool shares_bias(const BackwardProblem& p) {
    if (!p.g_bias) return false;
    bool shared = p.cu_queries != nullptr || p.g_bias.column == 0 || (p.kv_heads > 1 && p.g_bias.head == 0);
    for (int i = 0; i < p.batch_dims; ++i) shared = shared || (p.batch_size[i] > 1 && p.g_bias.batch[i] == 0);
    return shared;
}

struct BackwardShares {
    const BackwardProblem& p;
    const CpuPlan& plan;
    const cpu::AttentionTile& tile;
    int type;
    bool cleaned;
    int64_t queries_bytes, block_bytes, sums_bytes;  // of a head's queries, of a block, of all heads' g_query
    char* memory = nullptr;
    std::vector<cpu::AttentionGradients> heads{};  // [threads, group]
    std::vector<double> numbers{}, sinks{};        // sinks: [threads, batches, heads]
    std::vector<char> g_bias{};
    std::atomic<int64_t> next{0};

    char* sums_of(int thread) const { return memory + thread * sums_bytes; }
    char* block_of(int thread) const { return memory + plan.threads * sums_bytes + thread * block_bytes; }
    char* queries_of(int thread) const {
        return memory + plan.threads * (sums_bytes + block_bytes) + thread * p.group() * queries_bytes;
    }
    int64_t bytes() const { return plan.threads * (sums_bytes + block_bytes + p.group() * queries_bytes); }

    cpu::AttentionGradients* fill(int64_t pair, int thread) {
        const int64_t batch = pair / p.kv_heads, kv = pair % p.kv_heads;
        const Sequence s = sequence_of(p, batch);
        cpu::AttentionGradients* const own = heads.data() + thread * p.group();
        for (int64_t g = 0; g < p.group(); ++g) {
            cpu::AttentionGradients& h = own[g] = {};
            const int64_t head = kv * p.group() + g;
            fill_head(p, batch, head, s,
                      reinterpret_cast<double (&)[2]>(numbers[static_cast<size_t>(2 * (thread * p.group() + g))]), h);
            h.cleaned = cleaned;
            h.g = matrix(p, p.g, batch, head, s.first_query);
            h.g_lse = matrix(p, p.g_lse, batch, head, s.first_query);
            h.g_query = matrix(p, p.g_query, batch, head, s.first_query);
            h.g_key = matrix(p, p.g_key, batch, kv, s.first_key);
            h.g_value = matrix(p, p.g_value, batch, kv, s.first_key);
            if (p.g_bias) {
                const int64_t at = (begin_of(p, p.g_bias, batch, head) - p.g_bias.data) / size_of(p.g_bias.dtype) +
                                   s.first_query * p.g_bias.row + s.first_key * p.g_bias.column;
                h.g_bias = g_bias.data() + at * tile.acc;
                h.g_bias_row = p.g_bias.row, h.g_bias_column = p.g_bias.column;
            }
        }
        return own;
    }

    void pack(const cpu::AttentionGradients* own, int64_t pair, int thread, char* queries, int64_t begin, int64_t end) {
        for (int64_t g = 0; g < p.group(); ++g)
            sinks[static_cast<size_t>(((pair < plan.alone ? 0 : thread) * p.batches + pair / p.kv_heads) * p.heads +
                                      pair % p.kv_heads * p.group() + g)] +=
                cpu::table().attention.queries[type](
                    own[g], queries + g * cpu::AttentionQueries(tile, own->queries, p.size, p.value_size).bytes, begin,
                    end);
    }

    // Blocks first, first + step, ... of the keys.
    void blocks(const cpu::AttentionGradients* own, int thread, const char* queries, int64_t first, int64_t step) {
        const int64_t keys = own->keys, size = keys <= cpu::kAttentionBackwardLastKeys ? cpu::kAttentionBackwardLastKeys
                                                                                       : cpu::kAttentionBackwardKeys;
        std::memset(sums_of(thread), 0, static_cast<size_t>(sums_bytes));
        for (int64_t k = first * size; k < keys; k += step * size)
            cpu::table().attention.keys[type](own, p.group(), queries, sums_of(thread), block_of(thread), k,
                                              std::min(k + size, keys));
    }

    // g_query from the sums of threads `from` and the `parts` - 1 after it.
    void finish(const cpu::AttentionGradients* own, int from, int parts, int64_t begin, int64_t end) {
        const int64_t head = own->queries * round_up(p.size, tile.lanes) * tile.acc;
        for (int64_t g = 0; g < p.group() && p.g_query; ++g)
            cpu::table().attention.g_query[type](own[g], sums_of(from) + g * head, sums_bytes / tile.acc, parts, begin,
                                                 end);
    }

    void run() {
        cpu::parallel(plan.threads, [&](int thread, int count) {
            for (int64_t pair; (pair = next++) < plan.alone;) {
                const cpu::AttentionGradients* own = fill(pair, thread);
                pack(own, pair, thread, queries_of(thread), 0, own->queries);
                blocks(own, thread, queries_of(thread), 0, 1);
                finish(own, thread, 1, 0, own->queries);
            }
            for (int64_t pair = plan.alone; pair < plan.pairs; ++pair) {
                const cpu::AttentionGradients* own = fill(pair, thread);
                const int64_t n = own->queries, units = ceil_div(n, tile.group);
                cpu::barrier();
                pack(own, pair, thread, queries_of(0), units * thread / count * tile.group,
                     std::min(units * (thread + 1) / count * tile.group, n));
                cpu::barrier();
                blocks(own, thread, queries_of(0), thread, count);
                cpu::barrier();
                finish(own, 0, count, n * thread / count, n * (thread + 1) / count);
            }
        });
    }

    void put(const Operand& to, int64_t n, double (*number)(const char* sums, int64_t i), const char* sums) const {
        const auto entry = cpu::table().attention.put[static_cast<int>(to.dtype)];
        constexpr int64_t kAtOnce = 512;
        double some[kAtOnce];
        for (int64_t i = 0; i < n; i += kAtOnce) {
            const int64_t m = std::min(kAtOnce, n - i);
            for (int64_t j = 0; j < m; ++j) some[j] = number(sums, i + j);
            entry({to.data + i * size_of(to.dtype), 0, 1}, some, 1, m);
        }
    }
};

}  // namespace

bool backward_by_tiles(const BackwardProblem& p) {
    if (p.queries == 0 || p.keys == 0 || p.size == 0 || p.value_size == 0) return false;
    const cpu::AttentionTile& tile = cpu::table().attention.tile[static_cast<int>(p.dtype)];
    const CpuPlan plan = plan_cpu(p, tile, shares_bias(p) ? 1 : cpu::max_threads(), 5);
    const bool cleaned = any_unusual(p, plan.threads);
    const int64_t queries = cpu::AttentionQueries(tile, plan.most_queries, p.size, p.value_size).bytes;
    const cpu::AttentionBlock block(tile, p.size, p.value_size);
    const int64_t sums = round_up(p.group() * plan.most_queries * block.size_ld * tile.acc, 64);
    static thread_local cpu::Workspace memory;
    run_on_cpu(
        "attention_backward", [&] { return concat("attention_", tile.name, "_", tile.isa); }, plan.work,
        [&] { return concat(plan.alone, " of ", plan.pairs, " heads alone, ", plan.threads, " threads"); },
        [&] {
            BackwardShares s{p, plan, tile, static_cast<int>(p.dtype), cleaned, queries, block.bytes, sums};
            s.memory = memory.get(static_cast<size_t>(s.bytes()));
            s.heads.resize(static_cast<size_t>(plan.threads * p.group()));
            s.numbers.resize(2 * s.heads.size());
            s.sinks.resize(static_cast<size_t>(plan.threads * p.batches * p.heads));
            s.g_bias.resize(static_cast<size_t>(p.g_bias_numbers * tile.acc));
            s.run();
            if (p.g_bias)
                s.put(
                    p.g_bias, p.g_bias_numbers,
                    tile.acc == 4
                    ? [](const char* x, int64_t i) -> double { return reinterpret_cast<const float*>(x)[i]; }
                    : [](const char* x, int64_t i) { return reinterpret_cast<const double*>(x)[i]; },
                    s.g_bias.data());
            if (p.g_sink) {
                std::vector<double> total(static_cast<size_t>(p.heads));
                for (size_t i = 0; i < s.sinks.size(); ++i) total[i % total.size()] += s.sinks[i];
                cpu::table().attention.put[static_cast<int>(p.dtype)]({p.g_sink.data, 0, 1}, total.data(), 1, p.heads);
            }
            clear_rest(p);
        });
    memory.trim();
    return true;
}

}  // namespace nk::attention
