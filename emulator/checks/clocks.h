// What each warp of a cluster knows of the others: vector clocks. A barrier, or an mbarrier's arrival and wait, passes
// knowledge on; two accesses that no such way connects are a race. Beside it each warp knows what fences have covered:
// which writes a proxy fence has shown to the asynchronous proxy, and what came before a fence of the device's scope.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace emu {

// Who did something when: the clock of a warp, or of an mbarrier whose copies landed. 0: nobody.
using Stamp = uint32_t;

class Clocks {
  public:
    static constexpr uint32_t kIndexBits = 10, kIndexMask = (1u << kIndexBits) - 1;
    static constexpr uint32_t kAgents = 256;  // mbarriers of a cluster that are told apart

    // What an arrival leaves behind and a wait takes up.
    enum Fence { kProxyFence, kDeviceFence, kFences };
    struct Knowledge {
        std::vector<uint32_t> seen;
        std::array<std::vector<uint32_t>, kFences> fenced;
        void join(const Knowledge& o);
    };

    void begin(uint32_t warps);

    Stamp stamp(uint32_t warp) {
        stamped_[warp] = true;
        return row(warp)[warp] << kIndexBits | warp;
    }
    bool ordered(Stamp s, uint32_t warp) const { return ordered(s, warp, seen(warp)); }
    // The same, with what the warp has seen at hand: this is asked for each byte of shared memory that is touched.
    static bool ordered(Stamp s, uint32_t warp, const uint32_t* seen) {
        return s == 0 || (s & kIndexMask) == warp || s >> kIndexBits <= seen[s & kIndexMask];
    }
    const uint32_t* seen(uint32_t warp) const { return row(warp); }
    bool fenced(Stamp s, uint32_t warp) const {
        if (s == 0 || is_agent(s)) return true;
        const std::vector<uint32_t>& table = fenced_[kProxyFence];
        return !table.empty() && s >> kIndexBits <= table[warp * columns_ + (s & kIndexMask)];
    }
    // By warp: until when a fence of the device's scope covers what it did, as far as `warp` knows. Empty: none.
    std::span<const uint32_t> shown(uint32_t warp) const {
        const std::vector<uint32_t>& table = fenced_[kDeviceFence];
        return table.empty() ? std::span<const uint32_t>() : std::span(table).subspan(warp * columns_, warps_);
    }
    uint32_t warps() const { return warps_; }
    bool is_agent(Stamp s) const { return (s & kIndexMask) >= warps_; }

    void barrier(std::span<const uint32_t> warps);
    void release(uint32_t warp, Knowledge& to, bool relaxed);          // relaxed: as of the warp's latest fence
    void acquire(uint32_t warp, const Knowledge& from, bool relaxed);  // relaxed: with the warp's next fence
    // What is common to the warps that issue an asynchronous read: what all of them know. What each does next is later.
    void issue(uint32_t warp, Knowledge& all, bool first);
    uint32_t now(uint32_t warp) { return past(warp); }
    void learn(uint32_t warp, uint32_t of, uint32_t time) { row(warp)[of] = std::max(row(warp)[of], time); }
    // The same by a place in memory: a strong store leaves what the warp knew at its latest fence, and a strong load
    // takes it up with the next fence, or barrier.
    bool has_fenced(uint32_t warp) const { return !later_.empty() && !later_[warp].at_fence.seen.empty(); }
    void poll(uint32_t warp, const Knowledge& from);
    void settle(uint32_t warp);  // at a barrier
    void fence(uint32_t warp);
    void proxy_fence(uint32_t warp) { cover(kProxyFence, warp); }
    void device_fence(uint32_t warp) { cover(kDeviceFence, warp); }
    uint32_t new_agent();
    Stamp advance(uint32_t agent, Knowledge& to);  // something of the agent happens: `to` knows of it
    bool known(const Knowledge& what, std::span<const uint32_t> warps, uint32_t from, uint32_t until) const;

  private:
    uint32_t* row(uint32_t warp) { return seen_.data() + warp * columns_; }
    const uint32_t* row(uint32_t warp) const { return seen_.data() + warp * columns_; }
    void cover(Fence kind, uint32_t warp);
    uint32_t past(uint32_t warp);  // the warp's clock until now; whatever it does next is later
    struct Later {
        Knowledge at_fence, at_wait, polled;
    };

    uint32_t warps_ = 0, columns_ = 0, used_ = 0, agents_ = 0;
    std::vector<uint32_t> seen_, agent_clock_, joined_;
    std::array<std::vector<uint32_t>, kFences> fenced_;  // empty: no such fence so far
    std::vector<char> stamped_;  // by warp: its clock is in use, so the next moment needs another
    std::vector<Later> later_;
};

}  // namespace emu
