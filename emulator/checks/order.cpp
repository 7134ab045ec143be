#include "order.h"

#include <algorithm>

namespace emu {

namespace {

using Seen = std::vector<const Snapshot*>;

// Whether one of these releases, or one that was known to it, is behind `other`.
bool covers(const Variable& v, size_t count, GlobalStamp other, Seen& seen) {
    for (size_t k = std::min(count, v.releases.size()); k-- > 0;) {
        const Snapshot& s = *v.releases[k];
        if (s.cluster == cluster_of(other) && within(other) >> Clocks::kIndexBits <= s.clock[warp_of(other)])
            return true;
        if (s.known.empty() || std::find(seen.begin(), seen.end(), &s) != seen.end()) continue;
        seen.push_back(&s);
        for (const auto& [variable, n] : s.known)
            if (covers(*variable, n, other, seen)) return true;
    }
    return false;
}

}  // namespace

void GlobalOrder::begin(uint64_t cluster, uint32_t warps_in_block, Clocks& clocks, Variables& variables) {
    cluster_ = cluster, warps_in_block_ = warps_in_block, clocks_ = &clocks, variables_ = &variables;
    known_.clear();
    latest_.assign(clocks.warps(), nullptr);
}

// What the warp has read becomes known to it.
void GlobalOrder::learn(uint32_t warp) {
    for (Known& k : known_) {
        if (std::erase(k.pending, warp) == 0) continue;
        const auto same = [&](Stamp s) { return (s & Clocks::kIndexMask) == warp; };
        if (std::none_of(k.learners.begin(), k.learners.end(), same)) k.learners.push_back(clocks_->stamp(warp));
    }
}

bool GlobalOrder::knows(uint32_t warp, const Known& k) const {
    return std::any_of(k.learners.begin(), k.learners.end(), [&](Stamp s) { return clocks_->ordered(s, warp); });
}

void GlobalOrder::fence(uint32_t warp) {
    learn(warp);
    clocks_->device_fence(warp);
}

void GlobalOrder::barrier(std::span<const uint32_t> warps) {
    if (known_.empty()) return;
    for (const uint32_t w : warps) learn(w);
}

void GlobalOrder::release(uint32_t warp, uint64_t address) {
    const std::span<const uint32_t> shown = clocks_->shown(warp);
    if (shown.empty()) return;
    Snapshot s;
    s.cluster = cluster_;
    s.clock.assign(shown.begin(), shown.end());
    for (const Known& k : known_)
        if (std::any_of(k.learners.begin(), k.learners.end(),
                        [&](Stamp t) { return t >> Clocks::kIndexBits <= shown[t & Clocks::kIndexMask]; }))
            s.known.emplace_back(k.variable, k.count);
    auto& latest = latest_[warp];
    if (latest == nullptr || *latest != s) latest = std::make_shared<const Snapshot>(std::move(s));
    const std::lock_guard lock(variables_->mutex);
    std::unique_ptr<Variable>& v = variables_->at[address];
    if (v == nullptr) v = std::make_unique<Variable>();
    if (v->releases.empty() || v->releases.back() != latest) v->releases.push_back(latest);
}

void GlobalOrder::acquire(uint32_t warp, uint64_t address, bool at_once) {
    const std::lock_guard lock(variables_->mutex);
    const auto it = variables_->at.find(address);
    if (it == variables_->at.end()) return;
    const Variable* v = it->second.get();
    auto k = std::find_if(known_.begin(), known_.end(), [&](const Known& n) { return n.variable == v; });
    if (k == known_.end()) k = known_.insert(k, Known{v});
    k->count = v->releases.size();
    if (std::find(k->pending.begin(), k->pending.end(), warp) == k->pending.end()) k->pending.push_back(warp);
    if (at_once) learn(warp);
}

bool GlobalOrder::sees(uint32_t warp, GlobalStamp other, uint64_t address) const {
    if (cluster_of(other) == cluster_ && clocks_->ordered(within(other), warp)) return true;
    if (known_.empty()) return false;
    const std::lock_guard lock(variables_->mutex);
    const auto it = variables_->at.find(address);
    Seen seen;
    for (const Known& k : known_) {
        if (!knows(warp, k)) continue;
        if (covers(*k.variable, k.count, other, seen)) return true;
        // the atomic that told of it comes before what follows, too
        if (!(other & kStrong) || it == variables_->at.end() || k.variable != it->second.get()) continue;
        for (size_t n = 0; n < std::min(k.count, k.variable->releases.size()); ++n)
            if (k.variable->releases[n]->cluster == cluster_of(other)) return true;
    }
    return false;
}

}  // namespace emu
