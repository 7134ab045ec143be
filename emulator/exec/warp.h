// A warp while it runs: its registers, the lanes that run together, and those that wait elsewhere.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "../decode/code.h"
#include "../memory/buffer.h"
#include "frames.h"
#include "mbarrier.h"

namespace emu {

inline constexpr int kLanes = 32;
inline constexpr uint32_t kAll = 0xffffffff;

struct Block;

// Lanes that are at one place together.
struct Group {
    const Inst* pc = nullptr;
    uint32_t lanes = 0;
    bool waits = false;  // for other lanes, at an instruction that needs them
    uint32_t turn = 0;   // when it last waited for what others of the block do; they go first
    Place wait;          // the mbarrier, if it was one
    Hold frame;
};

enum class State : uint8_t { ready, at_barrier, at_wgmma, at_registers, done };

// Special registers, in the order of their 128-byte slots.
enum Special : uint32_t {
    tid_x,
    tid_y,
    tid_z,
    ntid_x,
    ntid_y,
    ntid_z,
    ctaid_x,
    ctaid_y,
    ctaid_z,
    nctaid_x,
    nctaid_y,
    nctaid_z,
    laneid,
    warpid,
    nwarpid,
    smid,
    nsmid,
    gridid,
    lanemask_eq,
    lanemask_lt,
    lanemask_le,
    lanemask_gt,
    lanemask_ge,
    dynamic_smem_size,
    total_smem_size,
    reserved_smem_begin,
    reserved_smem_end,
    reserved_smem_1,
    cluster_ctaid_x,
    cluster_ctaid_y,
    cluster_ctaid_z,
    cluster_nctaid_x,
    cluster_nctaid_y,
    cluster_nctaid_z,
    clusterid_x,
    clusterid_y,
    clusterid_z,
    nclusterid_x,
    nclusterid_y,
    nclusterid_z,
    cluster_ctarank,
    cluster_nctarank,
    is_explicit_cluster,  // a predicate
    special_count
};

// In front of each label stands an Inst with this Run: lanes that come from elsewhere join there.
extern const Run kJoin;

struct AsyncCopy {
    uint64_t serial = 0;   // counts the warp's copies
    uint32_t waiting = 0;  // lanes whose copy has not landed
    uint32_t early = 0;    // lanes whose data is there, though no wait demanded it
    uint32_t bytes = 0;
    const Inst* inst = nullptr;
    std::array<uint32_t, kLanes> group, shared, valid;
    std::array<const char*, kLanes> from;
};

struct Warp {
    char* base[3] = {};   // registers, constants, special registers
    uint32_t mask = 0;    // lanes of the instruction that runs
    uint32_t active = 0;  // lanes of the group that runs
    uint32_t alive = 0;   // lanes that have not exited
    const Inst* pc = nullptr;
    const Code* code = nullptr;
    Frames frames;  // in front of all that hold them
    Hold frame;
    std::vector<Group> others;
    Block* block = nullptr;
    uint32_t index = 0;
    State state = State::ready;
    bool stop = false;  // the turn ends behind this instruction
    int barrier = -1;
    uint32_t ones = 0, zeros = 0;  // predicates that the barrier it waited for counted
    int64_t budget = 0;            // jumps backwards until another warp's turn
    Buffer specials;
    std::vector<uint16_t> quotas;  // of registers, each that setmaxnreg set
    uint32_t number = 0;           // within the cluster
    std::vector<AsyncCopy> copies;
    uint64_t copies_made = 0;
    std::array<uint32_t, kLanes> committed{}, bulk_committed{};

    // Waits for what other warps do (wait_here).
    const Inst* waits_at = nullptr;  // the turn ended there
    bool overdue = false;            // the wait ends without success
    uint32_t turn = 0, turns = 0;
    Place wait;                                          // for this mbarrier; of barrier.cluster none
    std::vector<Tried> tried;                            // waits for mbarriers that have failed and may come again
    uint32_t cluster_arrived = 0, cluster_released = 0;  // lanes at barrier.cluster

    template <class T>
    T* at(Ref r) const {
        return reinterpret_cast<T*>(base[r & 3] + (r & ~3u));
    }
    uint32_t predicate(Ref r) const { return *at<uint32_t>(r); }
    void set_predicate(Ref r, uint32_t bits) const {
        uint32_t& p = *at<uint32_t>(r);
        p = (p & ~mask) | (bits & mask);
    }
    const Ref* list(const Inst& i) const { return code->refs.data() + i.list; }
};

}  // namespace emu
