// What is known to come before what among blocks. Within a block, barriers order its warps (the clocks of
// SharedShadow). Between blocks, and between warps without a barrier, only this does: one warp executes a fence and
// then an atomic or strong store (a release), another one reads it by an atomic or strong load and then executes a
// fence or waits at a barrier. What the first one knew before its fence, the second one knows from there on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "shadow.h"

namespace emu {

// Who touched something when: block + 1, warp, two flags, the warp's clock. 0: nobody.
using GlobalStamp = uint64_t;
inline constexpr GlobalStamp kStrong = 1u << 28, kDeviceWide = 1u << 27;
constexpr GlobalStamp block_stamp(uint64_t block) { return (block + 1) << 34; }
constexpr uint64_t block_of(GlobalStamp s) { return (s >> 34) - 1; }
constexpr uint32_t warp_of(GlobalStamp s) { return s >> 29 & 31; }
constexpr uint32_t clock_of(GlobalStamp s) { return s & (kDeviceWide - 1); }

struct Variable;

// The first `count` releases of a variable, for some warps of a block.
struct Known {
    const Variable* variable = nullptr;
    size_t count = 0;
    uint32_t warps = 0;    // a bit for each warp that knows them
    uint32_t pending = 0;  // for each that read them and has neither fence nor barrier behind it yet
};

// What a warp knew when it executed a fence.
struct Snapshot {
    uint64_t block = 0;
    std::array<uint32_t, SharedShadow::kWarps> clock{};
    std::vector<Known> known;
};

// A place in global memory through which blocks talk to each other.
struct Variable {
    std::vector<std::shared_ptr<const Snapshot>> releases;
};

// Of a launch.
struct Variables {
    std::mutex mutex;
    std::unordered_map<uint64_t, std::unique_ptr<Variable>> at;
};

// Of a block.
class BlockOrder {
  public:
    void begin(uint64_t block, SharedShadow& clocks, Variables& variables);
    GlobalStamp stamp(uint32_t warp) const {
        return block_stamp(block_) | uint64_t{warp} << 29 | clocks_->clock(warp, warp);
    }

    void fence(uint32_t warp);  // of the device's scope
    void barrier(uint32_t warps);
    void release(uint32_t warp, uint64_t address);                // in front of an atomic or strong store
    void acquire(uint32_t warp, uint64_t address, bool at_once);  // behind an atomic or strong load

    // Whether the access `other` to `address` comes before what the warp does now.
    bool sees(uint32_t warp, GlobalStamp other, uint64_t address) const;

  private:
    void share_fences(uint32_t warps);

    uint64_t block_ = 0;
    SharedShadow* clocks_ = nullptr;
    Variables* variables_ = nullptr;
    std::vector<Known> known_;
    std::array<std::shared_ptr<const Snapshot>, SharedShadow::kWarps> fenced_;
};

}  // namespace emu
