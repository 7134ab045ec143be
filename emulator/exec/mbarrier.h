// mbarrier objects. Their state is a word of shared memory, laid out as we like, since it is opaque to programs:
// 20 bits of pending arrivals, 20 of expected ones, 21 of bytes under way (with sign), the phase's parity, and 01.
#pragma once

#include <cstdint>

#include "../checks/clocks.h"

namespace emu {

struct Block;
struct Warp;
struct Inst;

// Some place in the shared memory of a block of the cluster.
struct Place {
    Block* block = nullptr;
    uint32_t offset = 0;
};

// A wait that has failed.
struct Tried {
    const Inst* inst;
    Place at;
    uint32_t parity;
};

struct MbarrierState {
    static constexpr uint32_t kMost = (1u << 20) - 1;
    uint32_t pending = 0, expected = 0;
    int32_t tx = 0;
    uint32_t parity = 0;

    static bool valid(uint64_t word) { return word >> 62 == 1; }
    static MbarrierState of(uint64_t word) {
        MbarrierState s;
        s.pending = static_cast<uint32_t>(word) & kMost, s.expected = static_cast<uint32_t>(word >> 20) & kMost;
        s.tx = static_cast<int32_t>(static_cast<int64_t>(word << 3) >> 43);
        s.parity = word >> 61 & 1;
        return s;
    }
    uint64_t word() const {
        return uint64_t{1} << 62 | uint64_t{parity} << 61 | (static_cast<uint64_t>(tx) & 0x1fffff) << 40 |
               uint64_t{expected} << 20 | pending;
    }
};

// What the checkers know of one beside its word.
struct Mbarrier {
    uint32_t agent = 0;                 // the clock of the copies that land for it
    Clocks::Knowledge arrived, passed;  // of the arrivals so far; of those of complete phases
    Stamp made = 0;
    bool published = false;  // to the cluster and to the asynchronous proxy, by fence.mbarrier_init
};

// The instructions, for one lane. `i` is what a message names: an arrival may happen long after its instruction.
void mbarrier_init(Warp& w, const Inst& i, int lane, Place at, uint32_t count);
void mbarrier_inval(Warp& w, const Inst& i, int lane, Place at);
// The word as it was before. `from`: what the arrival makes known, null: what the warp knows now.
uint64_t mbarrier_arrive(Warp& w, const Inst& i, int lane, Place at, uint32_t count, bool drop, bool completes,
                         bool relaxed, const Clocks::Knowledge* from = nullptr);
void mbarrier_add_pending(Warp& w, const Inst& i, int lane, Place at);
void mbarrier_expect(Warp& w, const Inst& i, int lane, Place at, int64_t bytes);  // negative: complete_tx
// Whether the phase of this parity is complete; `demands`: what is under way may land now to complete it.
bool mbarrier_passed(Warp& w, const Inst& i, int lane, Place at, uint32_t parity, bool relaxed, bool demands);
// For a copy that is issued: the barrier can take its completion.
void mbarrier_check_signal(Warp& w, const Inst& i, int lane, Place at);
// A copy has landed: its bytes count, and who waits will know of it. The stamp of its writes.
Stamp mbarrier_landed(Warp& w, const Inst& i, int lane, Place at, uint32_t bytes);
MbarrierState mbarrier_state(Place at);

}  // namespace emu
