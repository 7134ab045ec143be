// Attention on the CPU by tiles: which thread does which head and queries.
#include <atomic>
#include <vector>

#include "attention/plan_cpu.h"
#include "call/run.h"
#include "cpu/strided_copy.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "plan/arithmetic.h"

namespace nk::attention {

using plan::ceil_div;

namespace {

// A head as kernels take it, with the numbers that it points to.
struct OwnHead {
    double numbers[2];
    cpu::AttentionHead head;
    OwnHead(const Problem& p, int64_t pair, int64_t of_group) {
        const int64_t batch = pair / p.kv_heads;
        fill_head(p, batch, pair % p.kv_heads * p.group() + of_group, sequence_of(p, batch), numbers, head);
    }
    OwnHead(const OwnHead&) = delete;
};

// Keys and values of a head in pages, one row behind the other in `memory`, for as many tiles as pass over them.
struct Gathered {
    cpu::HeadMatrix key, value;

    Gathered(const Problem& p, const cpu::AttentionHead& h, char* memory)
        : key{memory, p.size, 1}, value{memory + h.keys * p.size * size_of(p.dtype), p.value_size, 1} {}
    static int64_t bytes(const Problem& p, int64_t keys) {
        if (p.table == nullptr) return 0;
        return cpu::attention_round_up(keys * (p.size + p.value_size) * size_of(p.dtype), 64);
    }
    void copy(const Problem& p, const cpu::AttentionHead& h, int64_t begin, int64_t end) const {
        for (int64_t k = begin; k < end;) {
            const int64_t within = k % h.pages.rows, n = std::min(end - k, h.pages.rows - within);
            const int64_t page = h.pages[k / h.pages.rows];
            copy_rows(p, h.key, page * h.pages.key + within * h.key.row, key, k, n, p.size);
            copy_rows(p, h.value, page * h.pages.value + within * h.value.row, value, k, n, p.value_size);
            k += n;
        }
    }
    void stand_in(cpu::AttentionHead& h) const { h.key = key, h.value = value, h.pages = {}; }

  private:
    static void copy_rows(const Problem& p, const cpu::HeadMatrix& from, int64_t at, const cpu::HeadMatrix& to,
                          int64_t row, int64_t n, int64_t columns) {
        const int64_t size = size_of(p.dtype);
        cpu::copy({static_cast<char*>(to.data) + row * to.row * size, 1, to.row},
                  {static_cast<char*>(from.data) + at * size, from.column, from.row}, n, columns,
                  static_cast<int>(size));
    }
};

struct Shares {
    const Problem& p;
    const CpuPlan& plan;
    const cpu::AttentionTile& tile;
    int type;
    int64_t packed, scratch, gathered;  // bytes
    char* memory;
    std::atomic<int64_t> next_pair{0}, next_item{0};

    int64_t of_thread() const { return scratch + packed + gathered; }
    char* scratch_of(int thread) const { return memory + thread * of_thread(); }
    char* packed_of(int thread) const { return scratch_of(thread) + scratch; }
    char* shared(int64_t pair) const { return memory + plan.threads * of_thread() + pair * (packed + gathered); }
    int64_t bytes() const { return plan.threads * of_thread() + (plan.pairs - plan.alone) * (packed + gathered); }
    // Keys begin .. end - 1 of a head, into memory that all heads which share them find them in.
    void pack(cpu::AttentionHead& h, char* to, int64_t begin, int64_t end) const {
        const Gathered own(p, h, to + packed);
        if (h.pages.table != nullptr) own.copy(p, h, begin, end), own.stand_in(h);
        cpu::table().attention.pack[type](h, to, begin, end);
    }
    void forward(cpu::AttentionHead& h, char* from, int thread, int64_t first, int64_t last) const {
        if (h.pages.table != nullptr) Gathered(p, h, from + packed).stand_in(h);
        cpu::table().attention.forward[type](h, from, scratch_of(thread), first, last);
    }

    void pair_alone(int64_t pair, int thread) const {
        for (int64_t g = 0; g < p.group(); ++g) {
            OwnHead own(p, pair, g);
            cpu::AttentionHead& h = own.head;
            if (g == 0) pack(h, packed_of(thread), 0, h.keys);
            const int64_t items = ceil_div(ceil_div(h.queries, tile.rows), cpu::kAttentionTiles);
            for (int64_t i = 0; i < items; ++i)
                forward(h, packed_of(thread), thread, h.queries * i / items, h.queries * (i + 1) / items);
        }
    }

    void together(int thread, int count) {
        const int64_t rest = plan.pairs - plan.alone, heads = rest * p.group();
        for (int64_t r = 0; r < rest; ++r) {
            OwnHead own(p, plan.alone + r, 0);
            const int64_t panels = ceil_div(own.head.keys, tile.wide);
            const int64_t begin = panels * thread / count * tile.wide;
            const int64_t end = std::min(panels * (thread + 1) / count * tile.wide, own.head.keys);
            if (begin < end) pack(own.head, shared(r), begin, end);
        }
        cpu::barrier();
        const int64_t tiles = ceil_div(plan.most_queries, tile.rows);
        const int64_t items =
            std::max(ceil_div(tiles, cpu::kAttentionTiles), std::min<int64_t>(tiles, ceil_div(4 * count, heads)));
        // the last queries first: with causal rules they have the most keys
        for (int64_t i; (i = next_item++) < heads * items;) {
            const int64_t at = items - 1 - i / heads, head = i % heads;
            OwnHead own(p, plan.alone + head / p.group(), head % p.group());
            const int64_t begin = own.head.queries * at / items, end = own.head.queries * (at + 1) / items;
            if (begin < end) forward(own.head, shared(head / p.group()), thread, begin, end);
        }
    }
};

void forward_of_tiles(const Problem& p, const CpuPlan& plan, const cpu::AttentionTile& tile, cpu::Workspace& memory) {
    const int type = static_cast<int>(p.dtype);
    const int64_t packed = cpu::AttentionPacked(tile, plan.most_keys, p.size, p.value_size).bytes;
    const int64_t scratch = cpu::AttentionScratch(tile, p.size, p.value_size).bytes;
    Shares s{p, plan, tile, type, packed, scratch, Gathered::bytes(p, plan.most_keys), nullptr};
    s.memory = memory.get(static_cast<size_t>(s.bytes()));
    cpu::parallel(plan.threads, [&](int thread, int count) {
        for (int64_t pair; (pair = s.next_pair++) < plan.alone;) s.pair_alone(pair, thread);
        if (plan.alone < plan.pairs) s.together(thread, count);
    });
}

void forward_of_few(const Problem& p, const CpuPlan& plan, const cpu::AttentionTile& tile, cpu::Workspace& memory) {
    const cpu::AttentionEntries& e = cpu::table().attention;
    const int type = static_cast<int>(p.dtype);
    const cpu::AttentionFew layout(tile, p.group(), plan.most_queries, p.size, p.value_size);
    const int64_t items = plan.pairs * plan.parts;
    char* const partial = memory.get(static_cast<size_t>(items * layout.partial_bytes + plan.threads * layout.bytes));
    std::vector<cpu::AttentionHead> heads(static_cast<size_t>(plan.threads * p.group()));
    std::vector<double> numbers(2 * heads.size());
    std::atomic<int64_t> next{0};
    cpu::parallel(plan.threads, [&](int thread, int count) {
        cpu::AttentionHead* const own = heads.data() + thread * p.group();
        const auto fill = [&](int64_t pair) {
            const int64_t batch = pair / p.kv_heads;
            for (int64_t g = 0; g < p.group(); ++g) {
                own[g] = {};
                fill_head(p, batch, pair % p.kv_heads * p.group() + g, sequence_of(p, batch),
                          reinterpret_cast<double (&)[2]>(numbers[static_cast<size_t>(2 * (thread * p.group() + g))]),
                          own[g]);
            }
            return own[0].queries;
        };
        for (int64_t i; (i = next++) < items;) {
            const int64_t pair = i / plan.parts, part = i % plan.parts;
            if (fill(pair) == 0) continue;
            const cpu::AttentionHead& h = own[0];
            KeyRange seen = visible_keys(h.rules, 0, h.queries, h.keys);
            const KeyRange last = visible_keys(h.rules, h.queries - 1, h.queries, h.keys);
            seen.end = std::max(std::max(seen.end, last.end), seen.begin);
            const int64_t length = seen.end - seen.begin;
            e.few[type](own, p.group(), partial + i * layout.partial_bytes,
                        partial + items * layout.partial_bytes + thread * layout.bytes,
                        seen.begin + length * part / plan.parts, seen.begin + length * (part + 1) / plan.parts);
            if (plan.parts == 1) e.few_finish[type](own, p.group(), partial + i * layout.partial_bytes, 0, 1);
        }
        if (plan.parts == 1) return;
        cpu::barrier();
        for (int64_t pair = thread; pair < plan.pairs; pair += count)
            if (fill(pair) > 0)
                e.few_finish[type](own, p.group(), partial + pair * plan.parts * layout.partial_bytes,
                                   layout.partial_bytes, static_cast<int>(plan.parts));
    });
}

}  // namespace

bool forward_by_tiles(const Problem& p) {
    if (p.queries == 0 || p.keys == 0 || p.size == 0 || p.value_size == 0) return false;
    const cpu::AttentionTile& tile = cpu::table().attention.tile[static_cast<int>(p.dtype)];
    const CpuPlan plan = plan_cpu(p, tile, cpu::max_threads(), 2);
    static thread_local cpu::Workspace memory;
    run_on_cpu(
        "attention", [&] { return concat("attention_", tile.name, "_", tile.isa); }, plan.work,
        [&] { return to_string(plan); },
        [&] {
            plan.few ? forward_of_few(p, plan, tile, memory) : forward_of_tiles(p, plan, tile, memory);
            clear_rest(p);
        });
    memory.trim();
    return true;
}

}  // namespace nk::attention
