// Asynchronous products of warpgroups (wgmma): which each warp has issued, committed and waited for, and which of its
// registers they use meanwhile.
//
// A product is one operation of four warps, each of which comes to it in its own time. Nothing happens until a warp
// waits for it: then its operands are read from shared memory, and the warp's part of the accumulators is written; the
// other warps' parts when they wait. A warp that waits for a product which another one has not issued stands still.
#pragma once

#include <deque>

#include "../checks/shadow.h"
#include "warp.h"

namespace emu {

inline constexpr uint32_t kWarpsInGroup = 4;

struct Wgmma {
    const Inst* inst = nullptr;
    const Code* code = nullptr;
    uint64_t a = 0, b = 0;  // descriptors
    bool adds = false;      // to what the accumulators hold
    uint32_t joined = 0;    // a bit for each warp that issued it
    bool read = false;      // shared memory
    uint32_t reader = 0;    // the warp that did, at its time `time`
    uint32_t time = 0;
    Clocks::Knowledge known;
    std::array<char*, kWarpsInGroup> registers{};
    std::vector<double> left, right;  // what was read: M x K (unless A lies in registers), K x N
};

// What wgmma demands of the registers of one warp; by their first slot of 64 bytes.
struct RegisterWatch {
    struct Slot {
        uint32_t touched = 0;               // the number of fences when another instruction used it last
        uint16_t writers = 0, readers = 0;  // products in flight
        uint32_t form = 0;                  // of the latest that writes it
    };
    std::vector<Slot> slots;
    uint32_t fences = 1;
    bool fenced = false;
    uint32_t in_flight = 0;  // products
};

struct Warpgroup {
    std::deque<Wgmma> queue;
    uint64_t first = 0;  // the number of the queue's first
    struct Member {
        uint64_t issued = 0, landed = 0;  // how many of all
        std::vector<uint64_t> groups;     // how many were issued when each group was committed
        RegisterWatch watch;
    };
    std::array<Member, kWarpsInGroup> members;
};

// Reads operands if none has, then multiplies the warp's 16 rows.
using Land = void (*)(Warp& w, Wgmma& op);

struct WgmmaRegisters {
    const Ref *accumulators, *a;
    uint32_t accumulator_count, a_count;
    uint32_t form;  // equal for products whose accumulators need no fence between
};

void begin_warpgroups(Block& b);
void issue(Warp& w, const Inst& i, uint64_t a, uint64_t b, bool adds, const WgmmaRegisters& r);
void fence_registers(Warp& w);
void commit(Warp& w);
// Lands all but the latest `pending` groups.
void wait(Warp& w, const Inst& i, uint32_t pending, Land land, WgmmaRegisters (*registers)(const Wgmma&));
void check_left_over(const Warp& w);  // a warp that is done
std::string awaited(const Warp& w);   // why it stands still
void watch_registers(Warp& w, const Inst& i);

}  // namespace emu
