// What is known of each byte of a block's shared memory: whether it was written, whether an asynchronous copy is on
// its way to it, and which warps touched it last. Two accesses of different warps, one of them a store, with no
// barrier between them are a race: each warp has a clock, and a barrier tells its warps each other's clocks.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace emu {

struct Inst;

class SharedShadow {
  public:
    static constexpr uint32_t kWarps = 32;
    using Clock = std::array<uint32_t, kWarps>;  // how much of each warp is known to have happened

    void begin(uint32_t bytes, uint32_t warps);

    // Empty if all is well, else what is wrong with the access of these bytes by a warp.
    const char* read(uint32_t warp, uint32_t address, uint32_t bytes);
    const char* write(uint32_t warp, uint32_t address, uint32_t bytes);
    const char* atomic(uint32_t warp, uint32_t address, uint32_t bytes);  // atomics do not race with one another
    void set_in_flight(uint32_t address, uint32_t bytes);
    void landed(uint32_t address, uint32_t bytes);
    // What is common to the warps that issue an asynchronous read together: what all of them know to have happened.
    struct Known {
        Clock seen, fenced;
    };
    void issue_late(Known& k, uint32_t warp);  // what the warp stores from now on is too late for the read
    const char* read_late(uint32_t warp, const Known& k, uint32_t address, uint32_t bytes);
    void begin_late(uint32_t warp) { ++clock_[warp][warp]; }
    uint32_t end_late(uint32_t warp) { return clock_[warp][warp]++; }  // the time of the reads, for learn_late
    void learn_late(uint32_t warp, uint32_t reader, uint32_t time);    // that they are over
    void proxy_fence(uint32_t warp);  // shows the asynchronous proxy what the warp knows to have been written
    void barrier(uint32_t warps);     // a bit for each warp that it joins
    uint32_t culprit() const { return culprit_; }  // byte of the last complaint
    uint32_t other_warp() const { return other_; }

  private:
    enum : uint8_t { kWritten = 1, kInFlight = 2, kAtomic = 4 };
    struct Byte {
        uint32_t writer = 0, reader = 0, reader2 = 0;  // clock * 32 + warp; 0: nobody
        uint8_t state = 0;
    };
    const char* store(uint32_t warp, Byte& b, bool atomic);
    bool ordered(uint32_t stamp, uint32_t warp) const {
        return stamp == 0 || (stamp & 31) == warp || (stamp >> 5) <= clock_[warp][stamp & 31];
    }

    std::vector<Byte> bytes_;
    std::array<Clock, kWarps> clock_, fenced_;
    uint32_t culprit_ = 0, other_ = 0;
};

}  // namespace emu
