#include "attention/plan_cpu.h"

#include "plan/arithmetic.h"
#include "tensor/check.h"

namespace nk::attention {

using plan::ceil_div;

namespace {

constexpr double kPerNanosecond = 60;      // multiplications and additions
constexpr double kThreadFrom = 20000;      // nanoseconds that are worth a thread
constexpr int64_t kFewQueries = 8;         // up to which values and keys are read as they lie
constexpr int64_t kFewPairedQueries = 2;   // the same where tiles multiply pairs
constexpr int64_t kFewKeys = 512;          // of a part
constexpr int64_t kMostParts = 128;        // that are asked for
constexpr double kReadPerNanosecond = 12;  // bytes of keys and values that are read once

}  // namespace

CpuPlan plan_cpu(const Problem& p, const cpu::AttentionTile& tile, int threads, double products) {
    CpuPlan plan{};
    double scores = 0;
    const bool alike = p.cu_queries == nullptr && p.lengths == nullptr;  // all batch entries
    double keys = 0;
    for (int64_t b = 0; b < (alike ? 1 : p.batches); ++b) {
        const Sequence s = sequence_of(p, b);
        plan.most_queries = std::max(plan.most_queries, s.queries);
        plan.most_keys = std::max(plan.most_keys, s.keys);
        const KeyRange seen = visible_keys(p.rules, s.queries / 2, s.queries, s.keys);
        scores += static_cast<double>(s.queries) * static_cast<double>(std::max<int64_t>(seen.end - seen.begin, 1));
        keys += static_cast<double>(std::max<int64_t>(seen.end - seen.begin, 0));
    }
    if (alike) scores *= static_cast<double>(p.batches), keys *= static_cast<double>(p.batches);
    plan.work =
        scores * static_cast<double>(p.heads) * static_cast<double>(p.size + p.value_size) * products / kPerNanosecond;
    plan.few = p.key.column == 1 && p.value.column == 1 &&
               plan.most_queries <= (tile.group == 2 ? kFewPairedQueries : kFewQueries);
    if (plan.few)
        plan.work = std::max(plan.work, keys * static_cast<double>(p.kv_heads * (p.size + p.value_size)) *
                                            size_of(p.dtype) / kReadPerNanosecond);
    plan.threads = static_cast<int>(std::clamp<double>(plan.work / kThreadFrom, 1, threads));
    plan.pairs = p.batches * p.kv_heads;
    plan.alone = plan.pairs - plan.pairs % plan.threads;
    const bool even = plan.threads == 1 || (alike && plan.pairs % plan.threads == 0);
    plan.parts = even ? 1 : std::clamp<int64_t>(plan.most_keys / kFewKeys, 1, ceil_div(4 * plan.threads, plan.pairs));
    if (p.splits > 0) plan.parts = std::min({p.splits, std::max<int64_t>(plan.most_keys, 1), kMostParts});
    return plan;
}

std::string to_string(const CpuPlan& plan) {
    if (plan.few) return concat("few queries, ", plan.parts, " parts of the keys, ", plan.threads, " threads");
    return concat(plan.alone, " of ", plan.pairs, " heads alone, ", plan.threads, " threads");
}

}  // namespace nk::attention
