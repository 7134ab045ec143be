// What is known of each byte of a block's shared memory: whether it was written, which asynchronous copies are on their
// way to it or still read it, and who touched it last. Two accesses of different warps, one of them a store, with
// nothing between them that passes knowledge on (see clocks.h) are a race. Warps are numbered throughout the cluster.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clocks.h"

namespace emu {

class SharedShadow {
  public:
    void begin(uint32_t bytes, Clocks& clocks);

    // Null if all is well, else what is wrong with the access of these bytes by a warp.
    // Strong ones (volatile, relaxed ...) race neither with one another nor with atomics.
    const char* read(uint32_t warp, uint32_t address, uint32_t bytes, bool strong = false);
    const char* write(uint32_t warp, uint32_t address, uint32_t bytes, bool strong = false);
    const char* atomic(uint32_t warp, uint32_t address, uint32_t bytes);  // atomics do not race with one another

    // cp.async, of the generic proxy.
    void set_in_flight(uint32_t address, uint32_t bytes);
    void landed(uint32_t address, uint32_t bytes);
    void set_written(uint32_t address, uint32_t bytes);  // by nobody of the block
    void set_writer(Stamp by, uint32_t address, uint32_t bytes);

    // The asynchronous proxy (bulk copies, wgmma): what a warp makes it read or write, checked when it is issued. A
    // read of what the generic proxy wrote needs fence.proxy.async between the two.
    const char* async_read(uint32_t warp, uint32_t address, uint32_t bytes);
    const char* async_write(uint32_t warp, uint32_t address, uint32_t bytes, bool proxy, bool combines);
    // wgmma: a read that was issued when only `known` had happened. What was stored since then is an error, too.
    const char* late_read(uint32_t warp, const Clocks::Knowledge& known, uint32_t address, uint32_t bytes);
    void set_reading(uint32_t address, uint32_t bytes, bool on);
    void async_landed(Stamp by, uint32_t address, uint32_t bytes);

    void set_object(uint32_t address, bool on);  // the 8 bytes of an mbarrier

    // Whether nobody outside of warps [first, first + count) touched a byte that these do not know of.
    bool finished(uint32_t first, uint32_t count);

    uint32_t culprit() const { return culprit_; }  // byte of the last complaint
    uint32_t other_warp() const { return other_; }
    bool both_wrote() const { return both_wrote_; }  // the last complaint is of two stores and no more

  private:
    enum : uint8_t { kWritten = 1, kInFlight = 2, kAtomic = 4, kReading = 8, kObject = 16, kBusy = 26 };
    struct Byte {
        Stamp writer = 0, reader = 0, reader2 = 0;
        uint8_t state = 0;
    };
    const char* store(Stamp stamp, const uint32_t* seen, Byte& b, bool atomic);
    const char* race(Stamp with, const char* what);
    static const char* busy(uint8_t state, const char* early);

    std::vector<Byte> bytes_;
    Clocks* clocks_ = nullptr;
    uint32_t culprit_ = 0, other_ = 0;
    bool both_wrote_ = false;
};

}  // namespace emu
