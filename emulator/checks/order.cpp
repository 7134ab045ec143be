#include "order.h"

#include <algorithm>

namespace emu {

namespace {

using Seen = std::vector<const Snapshot*>;

// Whether one of these releases, or one that was known to it, is behind `other`.
bool covers(const Variable& v, size_t count, GlobalStamp other, Seen& seen) {
    for (size_t k = std::min(count, v.releases.size()); k-- > 0;) {
        const Snapshot& s = *v.releases[k];
        if (s.block == block_of(other) && s.clock[warp_of(other)] >= clock_of(other)) return true;
        if (s.known.empty() || std::find(seen.begin(), seen.end(), &s) != seen.end()) continue;
        seen.push_back(&s);
        for (const Known& n : s.known)
            if (covers(*n.variable, n.count, other, seen)) return true;
    }
    return false;
}

}  // namespace

void BlockOrder::begin(uint64_t block, SharedShadow& clocks, Variables& variables) {
    block_ = block, clocks_ = &clocks, variables_ = &variables;
    known_.clear();
    fenced_.fill(nullptr);
}

void BlockOrder::fence(uint32_t warp) {
    const uint32_t bit = 1u << warp;
    auto s = std::make_shared<Snapshot>();
    s->block = block_;
    for (uint32_t w = 0; w < SharedShadow::kWarps; ++w) s->clock[w] = clocks_->clock(warp, w);
    for (Known& k : known_) {
        if (k.pending & bit) k.warps |= bit, k.pending &= ~bit;
        if (k.warps & bit) s->known.push_back(k);
    }
    fenced_[warp] = std::move(s);
    clocks_->tick(warp);  // what follows is not covered
}

// What a warp knew at its fence, others know behind a barrier, and may pass on by an atomic of their own.
void BlockOrder::share_fences(uint32_t warps) {
    std::shared_ptr<Snapshot> all;
    for (uint32_t w = 0; w < SharedShadow::kWarps; ++w) {
        if (!(warps >> w & 1) || fenced_[w] == nullptr) continue;
        if (all == nullptr) {
            all = std::make_shared<Snapshot>(*fenced_[w]);
            continue;
        }
        for (size_t k = 0; k < all->clock.size(); ++k) all->clock[k] = std::max(all->clock[k], fenced_[w]->clock[k]);
        all->known.insert(all->known.end(), fenced_[w]->known.begin(), fenced_[w]->known.end());
    }
    if (all == nullptr) return;
    for (uint32_t w = 0; w < SharedShadow::kWarps; ++w)
        if (warps >> w & 1) fenced_[w] = all;
}

void BlockOrder::barrier(uint32_t warps) {
    share_fences(warps);
    for (Known& k : known_)
        if ((k.warps | k.pending) & warps) k.warps |= warps, k.pending &= ~warps;
}

void BlockOrder::release(uint32_t warp, uint64_t address) {
    if (fenced_[warp] == nullptr) return;
    const std::lock_guard lock(variables_->mutex);
    std::unique_ptr<Variable>& v = variables_->at[address];
    if (v == nullptr) v = std::make_unique<Variable>();
    if (v->releases.empty() || v->releases.back() != fenced_[warp]) v->releases.push_back(fenced_[warp]);
}

void BlockOrder::acquire(uint32_t warp, uint64_t address, bool at_once) {
    const std::lock_guard lock(variables_->mutex);
    const auto it = variables_->at.find(address);
    if (it == variables_->at.end()) return;
    const Variable* v = it->second.get();
    auto k = std::find_if(known_.begin(), known_.end(), [&](const Known& n) { return n.variable == v; });
    if (k == known_.end()) k = known_.insert(k, Known{v, 0, 0, 0});
    k->count = v->releases.size();
    (at_once ? k->warps : k->pending) |= 1u << warp;
}

bool BlockOrder::sees(uint32_t warp, GlobalStamp other, uint64_t address) const {
    if (block_of(other) == block_ &&
        (warp_of(other) == warp || clock_of(other) <= clocks_->clock(warp, warp_of(other))))
        return true;
    if (known_.empty()) return false;
    const std::lock_guard lock(variables_->mutex);
    Seen seen;
    for (const Known& k : known_) {
        if (!(k.warps >> warp & 1)) continue;
        if (covers(*k.variable, k.count, other, seen)) return true;
    }
    if (!(other & kStrong)) return false;
    // the atomic that told of it comes before what follows, too
    const auto it = variables_->at.find(address);
    for (const Known& k : known_)
        if (it != variables_->at.end() && k.variable == it->second.get() && (k.warps >> warp & 1))
            for (size_t n = 0; n < k.count; ++n)
                if (k.variable->releases[n]->block == block_of(other)) return true;
    return false;
}

}  // namespace emu
