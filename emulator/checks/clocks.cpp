#include "clocks.h"

#include <algorithm>

namespace emu {

namespace {

void join(std::vector<uint32_t>& to, const uint32_t* from, size_t n) {
    if (to.size() < n) to.resize(n);
    for (size_t k = 0; k < n; ++k) to[k] = std::max(to[k], from[k]);
}

}  // namespace

void Clocks::Knowledge::join(const Knowledge& o) {
    emu::join(seen, o.seen.data(), o.seen.size());
    for (size_t f = 0; f < kFences; ++f) emu::join(fenced[f], o.fenced[f].data(), o.fenced[f].size());
}

void Clocks::begin(uint32_t warps) {
    warps_ = used_ = warps, columns_ = warps + kAgents, agents_ = 0;
    for (auto& table : fenced_) table.clear();
    seen_.assign(size_t{warps} * columns_, 0);
    agent_clock_.assign(kAgents, 0);
    later_.clear();
    stamped_.assign(warps, false);
    for (uint32_t w = 0; w < warps; ++w) row(w)[w] = 1;
}

void Clocks::barrier(std::span<const uint32_t> warps) {
    const auto pass = [&](std::vector<uint32_t>& table) {
        joined_.assign(used_, 0);
        for (const uint32_t w : warps) join(joined_, table.data() + w * columns_, used_);
        for (const uint32_t w : warps) std::copy(joined_.begin(), joined_.end(), table.data() + w * columns_);
    };
    pass(seen_);
    for (auto& table : fenced_)
        if (!table.empty()) pass(table);
    for (const uint32_t w : warps) ++row(w)[w], stamped_[w] = false;
}

uint32_t Clocks::past(uint32_t warp) {
    uint32_t& now = row(warp)[warp];
    if (!stamped_[warp]) return now - 1;
    stamped_[warp] = false;
    return now++;
}

void Clocks::release(uint32_t warp, Knowledge& to, bool relaxed) {
    if (relaxed) {
        if (!later_.empty()) to.join(later_[warp].at_fence);
        return;
    }
    const uint32_t until = past(warp), former = to.seen.size() > warp ? to.seen[warp] : 0;
    join(to.seen, row(warp), used_);
    to.seen[warp] = std::max(former, until);
    for (size_t f = 0; f < kFences; ++f)
        if (!fenced_[f].empty()) join(to.fenced[f], fenced_[f].data() + warp * columns_, used_);
}

void Clocks::acquire(uint32_t warp, const Knowledge& from, bool relaxed) {
    if (relaxed) {
        if (later_.empty()) later_.resize(warps_);
        return later_[warp].at_wait.join(from);
    }
    const auto take = [&](uint32_t* to, const std::vector<uint32_t>& v) {
        for (size_t k = 0; k < v.size(); ++k)
            if (k != warp) to[k] = std::max(to[k], v[k]);
    };
    take(row(warp), from.seen);
    for (size_t f = 0; f < kFences; ++f) {
        if (fenced_[f].empty()) continue;
        uint32_t* to = fenced_[f].data() + warp * columns_;
        for (size_t k = 0; k < from.fenced[f].size(); ++k) to[k] = std::max(to[k], from.fenced[f][k]);
    }
}

void Clocks::issue(uint32_t warp, Knowledge& all, bool first) {
    const uint32_t until = past(warp);
    const auto meet = [&](std::vector<uint32_t>& to, const uint32_t* from, bool own) {
        if (first) to.assign(used_, ~0u);
        to.resize(used_);
        for (uint32_t k = 0; k < used_; ++k) to[k] = std::min(to[k], own && k == warp ? until : from[k]);
    };
    meet(all.seen, row(warp), true);
    const std::vector<uint32_t>& proxy = fenced_[kProxyFence];
    if (proxy.empty())
        all.fenced[kProxyFence].clear();
    else
        meet(all.fenced[kProxyFence], proxy.data() + warp * columns_, false);
}

void Clocks::poll(uint32_t warp, const Knowledge& from) {
    acquire(warp, from, true);
    later_[warp].polled.join(from);
}

void Clocks::settle(uint32_t warp) {
    if (later_.empty() || later_[warp].polled.seen.empty()) return;
    acquire(warp, later_[warp].polled, false);
    later_[warp].polled = {};
}

void Clocks::fence(uint32_t warp) {
    if (later_.empty()) later_.resize(warps_);
    Later& l = later_[warp];
    acquire(warp, l.at_wait, false);
    l.at_wait = l.polled = {};
    release(warp, l.at_fence, false);
}

void Clocks::cover(Fence kind, uint32_t warp) {
    std::vector<uint32_t>& table = fenced_[kind];
    if (table.empty()) table.assign(size_t{warps_} * columns_, 0);
    uint32_t* to = table.data() + warp * columns_;
    const uint32_t until = past(warp);
    for (uint32_t k = 0; k < used_; ++k) to[k] = std::max(to[k], k == warp ? until : row(warp)[k]);
}

uint32_t Clocks::new_agent() {
    const uint32_t agent = warps_ + agents_++ % kAgents;
    used_ = std::max(used_, agent + 1);
    return agent;
}

Stamp Clocks::advance(uint32_t agent, Knowledge& to) {
    const uint32_t now = ++agent_clock_[agent - warps_];
    if (to.seen.size() <= agent) to.seen.resize(agent + 1);
    to.seen[agent] = now;
    return now << kIndexBits | agent;
}

bool Clocks::known(const Knowledge& what, std::span<const uint32_t> warps, uint32_t from, uint32_t until) const {
    for (uint32_t k = 0; k < what.seen.size() && k < warps_; ++k) {
        if ((k >= from && k < until) || what.seen[k] == 0) continue;
        if (std::none_of(warps.begin(), warps.end(), [&](uint32_t w) { return row(w)[k] >= what.seen[k]; }))
            return false;
    }
    return true;
}

}  // namespace emu
