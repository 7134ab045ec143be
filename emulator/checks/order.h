// What is known to come before what among clusters. Within a cluster its clocks say so. Between clusters only this
// does: one warp executes a fence of the device's scope and then an atomic or strong store (a release), another one
// reads it by an atomic or strong load and then executes a fence or waits at a barrier. What the first one knew before
// its fence, the second one knows from there on, and so does whoever learns of it by the cluster's clocks.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "clocks.h"

namespace emu {

// Who touched something in global memory when: the cluster + 1, two flags, the stamp within the cluster. 0: nobody.
using GlobalStamp = uint64_t;
inline constexpr GlobalStamp kStrong = uint64_t{1} << 32, kDeviceWide = uint64_t{1} << 33;
constexpr uint64_t cluster_of(GlobalStamp s) { return (s >> 34) - 1; }
constexpr Stamp within(GlobalStamp s) { return static_cast<Stamp>(s); }
constexpr uint32_t warp_of(GlobalStamp s) { return within(s) & Clocks::kIndexMask; }
constexpr bool same_warp(GlobalStamp a, GlobalStamp b) { return a >> 34 == b >> 34 && warp_of(a) == warp_of(b); }

struct Variable;

// The first `count` releases of a variable, known to whoever knows of what `learners` did.
struct Known {
    const Variable* variable = nullptr;
    size_t count = 0;
    std::vector<Stamp> learners = {};    // one for each warp, the earliest
    std::vector<uint32_t> pending = {};  // warps that read them and have neither fence nor barrier behind it yet
};

// What a warp that releases had shown by a fence.
struct Snapshot {
    uint64_t cluster = 0;
    std::vector<uint32_t> clock;
    std::vector<std::pair<const Variable*, size_t>> known;
    bool operator==(const Snapshot&) const = default;
};

// A place in global memory through which clusters talk to each other.
struct Variable {
    std::vector<std::shared_ptr<const Snapshot>> releases;
};

// Of a launch.
struct Variables {
    std::mutex mutex;
    std::unordered_map<uint64_t, std::unique_ptr<Variable>> at;
};

// Of a cluster; warps are numbered throughout it.
class GlobalOrder {
  public:
    void begin(uint64_t cluster, uint32_t warps_in_block, Clocks& clocks, Variables& variables);
    GlobalStamp stamp(uint32_t warp) const { return (cluster_ + 1) << 34 | clocks_->stamp(warp); }
    bool same_block(GlobalStamp a, GlobalStamp b) const {
        return a >> 34 == b >> 34 && warp_of(a) / warps_in_block_ == warp_of(b) / warps_in_block_;
    }

    void fence(uint32_t warp);                                    // of the device's scope
    void barrier(std::span<const uint32_t> warps);                // in front of that of the clocks
    void release(uint32_t warp, uint64_t address);                // in front of an atomic or strong store
    void acquire(uint32_t warp, uint64_t address, bool at_once);  // behind an atomic or strong load

    // Whether the access `other` to `address` comes before what the warp does now.
    bool sees(uint32_t warp, GlobalStamp other, uint64_t address) const;

  private:
    void learn(uint32_t warp);
    bool knows(uint32_t warp, const Known& k) const;

    uint64_t cluster_ = 0;
    uint32_t warps_in_block_ = 1;
    Clocks* clocks_ = nullptr;
    Variables* variables_ = nullptr;
    std::vector<Known> known_;
    std::vector<std::shared_ptr<const Snapshot>> latest_;  // that each warp released
};

}  // namespace emu
