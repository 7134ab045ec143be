// A launch and a thread block while they run.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <unordered_map>

#include "../checks/global.h"
#include "../checks/shadow.h"
#include "../error.h"
#include "../memory/map.h"
#include "counters.h"
#include "mbarrier.h"
#include "random.h"
#include "warp.h"
#include "warpgroup.h"

namespace emu {

struct Options {
    bool check_memory = true;
    bool check_shared = true;  // what was never written, copies under way, races
    bool check_global = true;  // what was never written, races
    bool count = true;         // sectors and bank conflicts
    int threads = 0;           // 0: as many as there are cores
    int seconds = 120;         // after which a launch is taken for one that never ends
    uint64_t shuffle = 0;      // not 0: the order of blocks and of warps' turns is drawn from it
};

// What kernels print. It goes to the process's stdout when the launch ends, in the order of the clusters.
class Output {
  public:
    void print(uint64_t cluster, const std::string& text);
    void flush();

  private:
    static constexpr size_t kMostKept = size_t{64} << 20;  // a kernel that prints for ever is not kept in memory

    void write();

    std::mutex mutex_;
    std::map<uint64_t, std::string> texts_;
    size_t bytes_ = 0;
};

constexpr uint32_t kReservedShared = 1024;  // bytes

struct Launch {
    const Program* program = nullptr;
    const Code* code = nullptr;
    uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
    uint32_t cluster[3] = {1, 1, 1};  // blocks; divides the grid
    bool explicit_cluster = false;
    uint32_t dynamic_shared = 0;
    std::vector<char> parameters;
    Options options;
    Ranges ranges;
    uint64_t number = 0;

    Counters counters;  // filled when it is over
    GlobalShadow global;
    Output output;

    std::chrono::steady_clock::time_point begun = std::chrono::steady_clock::now();

    uint64_t clusters() const { return uint64_t{grid[0]} * grid[1] * grid[2] / cluster_blocks(); }
    void locate(uint64_t cluster, uint32_t rank, uint32_t (&id)[3]) const;  // a block in the grid
    uint32_t cluster_blocks() const { return cluster[0] * cluster[1] * cluster[2]; }
    uint32_t threads() const { return block[0] * block[1] * block[2]; }
    uint32_t own_shared() const { return code->static_shared + dynamic_shared; }
    // What the system keeps for itself (cooperative groups sync there) lies behind, where it is used.
    uint32_t reserved_begin() const { return (own_shared() + 127) / 128 * 128; }
    uint32_t shared_bytes() const { return code->any_reserved ? reserved_begin() + kReservedShared : own_shared(); }
};

// Runs all clusters. Throws Error for the first thing that a checker finds.
void run(Launch& launch);

struct Barrier {
    uint32_t arrived = 0;          // threads
    uint32_t expected = 0;         // threads; 0: nobody waits
    bool counted = false;          // the instruction says how many
    Clocks::Knowledge known;       // of the warps that arrived without waiting, when they did
    uint32_t ones = 0, zeros = 0;  // predicates of the threads, for barriers that reduce
};

struct Cluster;

struct Block {
    Launch* launch = nullptr;
    Cluster* cluster = nullptr;
    uint32_t rank = 0;  // within the cluster
    uint32_t id[3] = {};
    Buffer shared, local;
    std::vector<Warp> warps;
    std::array<Barrier, 16> barriers;
    SharedShadow shadow;
    std::vector<Warpgroup> warpgroups;  // where the kernel uses wgmma
    Counters counters;

    std::unordered_map<uint32_t, Clocks::Knowledge> flags;  // what strong stores to shared memory tell
    std::map<uint32_t, Mbarrier> mbarriers;                 // by their place in shared memory, where they are checked
    bool exited = false;
    bool uses_warpgroups = false, watched = false;  // watched: their registers

    Block(Launch& l, Cluster& c, uint32_t rank);
    void begin();  // at `id`
    void complete(Barrier& b, int number);
    void finish_barriers();

  private:
    void begin_warp(Warp& w, uint32_t index);
};

// ---- control of warps, for the instructions ----

// Whether all of `members` that are still alive are here. If not, the group waits and another one runs.
bool together(Warp& w, const Inst& i, uint32_t members);
void jump(Warp& w, const Inst* to);                    // the whole group
void branch(Warp& w, const Inst* to, uint32_t taken);  // some of its lanes
void exit_lanes(Warp& w, uint32_t lanes);
void pick_group(Warp& w);
void enter(Warp& w, const Inst& i, const Call& call);
void enter_by_address(Warp& w, const Inst& i, const Call& call, const uint64_t* address);  // each lane's own function
void leave(Warp& w);  // ret of the group's function
void arrive(Warp& w, const Inst& i, uint32_t number, uint32_t count, bool waits);

// A wait that has to last: the warp's turn ends and it comes here again. False: it has lasted too long.
bool wait_here(Warp& w, const Inst& i);
void rotate_groups(Warp& w);  // after such a wait other lanes of the warp go first

// Throws with kernel, source line, block, thread and `what`.
[[noreturn]] void fail(const Warp& w, const Inst& i, int code, int lane, const std::string& what);
std::string place(const Warp& w, const Inst* i);

}  // namespace emu
