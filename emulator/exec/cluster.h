// A cluster of thread blocks while it runs, all of them on one thread of the host: their warps take turns, each until
// it waits or is done. A launch without clusters has one block to each.
#pragma once

#include <memory>

#include "../checks/order.h"
#include "block.h"
#include "transfers.h"

namespace emu {

// Addresses in shared::cluster: 0 in the upper bits is the block's own memory, else its rank + 1.
inline constexpr uint32_t kClusterShift = 24;

struct Cluster {
    Launch* launch = nullptr;
    std::vector<std::unique_ptr<Block>> blocks;
    Clocks clocks;
    GlobalOrder order;
    Transfers transfers;
    uint64_t events = 0;  // whatever may let a waiting warp go on

    explicit Cluster(Launch& l);
    void run(uint64_t number);

    void print(const std::string& text);  // by the launch's printf

    // barrier.cluster
    void arrive(Warp& w, const Inst& i, bool relaxed);
    void wait(Warp& w, const Inst& i, bool relaxed);
    void threads_left() {
        if (arrived_ != 0) complete_barrier();
    }

  private:
    void begin(uint64_t number);
    void run_warp(Warp& w);
    void complete_barrier();
    void block_exits(Block& b, const Warp& last);
    void idle();
    void watch_time();
    std::string waiting(Place at) const;
    std::string standing(const Warp& w) const;
    const Warp* all_standing(std::string& where) const;
    [[noreturn]] void deadlock();

    uint64_t number_ = 0;
    uint32_t arrived_ = 0;  // threads at barrier.cluster
    Clocks::Knowledge arrived_with_, passed_with_;
    std::vector<Warp*> turns_;  // the order in which warps run
    Random random_;
    uint32_t idle_rounds_ = 0;
    std::chrono::steady_clock::time_point idle_since_;
};

}  // namespace emu
