#include "cluster.h"

#include <algorithm>
#include <bit>

namespace emu {

namespace {

constexpr int64_t kTurn = 2000;  // jumps backwards, after which a warp that may spin lets the others run
// Rounds in which nobody goes on until waits end without success, and until it is a deadlock. The lanes of a warp may
// wait at 32 places, of which each round tries one.
constexpr uint32_t kPatience = 40, kDeadlock = 400;
constexpr auto kDeadlockTime = std::chrono::milliseconds(250);

// Watched: registers, for wgmma.
template <bool Watched>
void turn(Warp& w, Counters& counters) {
    while (!w.stop) {
        const Inst& i = *w.pc++;
        w.mask = w.active;
        if (i.guard != kNoRef) w.mask &= w.predicate(i.guard) ^ (i.guard_negated ? kAll : 0);
        ++counters.instructions[static_cast<int>(i.klass)];
        if (w.mask == 0) continue;
        if constexpr (Watched) watch_registers(w, i);
        i.run(w, i);
    }
}

}  // namespace

Cluster::Cluster(Launch& l) : launch(&l) {
    for (uint32_t r = 0; r < l.cluster_blocks(); ++r) blocks.push_back(std::make_unique<Block>(l, *this, r));
}

void Cluster::begin(uint64_t number) {
    number_ = number;
    const Launch& l = *launch;
    const auto warps = static_cast<uint32_t>(blocks[0]->warps.size());
    if (l.options.check_shared) {
        clocks.begin(static_cast<uint32_t>(blocks.size()) * warps);
        order.begin(number, warps, clocks, launch->global.variables);
    }
    transfers.begin(*this);
    arrived_ = 0, arrived_with_ = {}, passed_with_ = {};
    turns_.clear();
    for (const auto& b : blocks) {
        l.locate(number, b->rank, b->id);
        b->begin();
        for (Warp& w : b->warps) turns_.push_back(&w);
    }
    random_.state = l.options.shuffle + (number << 32);
    events = 1, idle_rounds_ = 0;
}

void Cluster::run_warp(Warp& w) {
    Counters& counters = w.block->counters;
    w.stop = false;
    w.budget = kTurn;
    if (w.waits_at != nullptr) {
        w.waits_at = nullptr;
        if (!w.others.empty()) rotate_groups(w);
    }
    w.block->watched ? turn<true>(w, counters) : turn<false>(w, counters);
}

void Cluster::run(uint64_t number) {
    begin(number);
    const bool shuffles = launch->options.shuffle != 0;
    for (;;) {
        bool ran = false, left = false, stalled = true;
        const uint64_t before = events;
        if (shuffles) std::shuffle(turns_.begin(), turns_.end(), random_);
        for (Warp* w : turns_) {
            if (w->state == State::ready) {
                run_warp(*w);
                ran = true;
                stalled = stalled && w->waits_at != nullptr;
                if (w->state == State::done) {
                    check_left_over(*w);
                    w->block->finish_barriers();
                    block_exits(*w->block, *w);
                }
                if (shuffles) transfers.maybe_land(random_);
            }
            left = left || w->state != State::done;
        }
        if (!left) return transfers.finish();
        if (!ran) deadlock();
        if (!stalled || events != before)
            idle_rounds_ = 0;
        else
            idle();
        watch_time();
    }
}

// Nobody went on in this round.
void Cluster::idle() {
    const auto now = std::chrono::steady_clock::now();
    if (idle_rounds_++ == 0) idle_since_ = now;
    if (idle_rounds_ > kDeadlock && now - idle_since_ > kDeadlockTime) deadlock();
    if (idle_rounds_ % kPatience == 0)
        for (Warp* w : turns_) w->overdue = true;
}

// The first warp that is not done; where it and the others stand is added.
const Warp* Cluster::all_standing(std::string& where) const {
    const Warp* first = nullptr;
    for (const auto& b : blocks)
        for (const Warp& w : b->warps) {
            if (w.state == State::done) continue;
            if (first == nullptr) first = &w;
            where += standing(w);
        }
    return first;
}

// A warp that waits in a loop for what never comes would run on for ever.
void Cluster::watch_time() {
    const int limit = launch->options.seconds;
    if (limit == 0 || std::chrono::steady_clock::now() - launch->begun < std::chrono::seconds(limit)) return;
    std::string where;
    const Warp* first = all_standing(where);
    fail(*first, *first->pc, launch_failed, 0, concat("no end after ", limit, " seconds", where));
}

std::string Cluster::waiting(Place at) const {
    if (at.block == nullptr) return " waiting";
    const MbarrierState s = mbarrier_state(at);
    uint32_t arrivals = 0;
    const uint32_t coming = transfers.under_way(at, arrivals);
    return concat(" waiting for the mbarrier at shared address 0x", std::hex, at.offset, std::dec, " (phase ", s.parity,
                  ": ", s.pending, " of ", s.expected, " arrivals pending, ", s.tx, " bytes of tx-count, ", coming,
                  " bytes under way)");
}

std::string Cluster::standing(const Warp& w) const {
    std::string text = concat("; warp ", w.index);
    if (blocks.size() > 1) text += concat(" of block rank ", w.block->rank);
    if (w.state == State::at_barrier) return text + concat(" waits at barrier ", w.barrier, ", ", place(w, w.pc - 1));
    if (w.state != State::ready) return text + concat(" waits ", awaited(w), ", ", place(w, w.pc));
    text += " stands";
    if (w.waits_at != nullptr) text += waiting(w.wait);
    text += concat(" at ", place(w, w.waits_at == nullptr ? w.pc : w.waits_at));
    for (const Group& g : w.others)
        text += concat(", lanes 0x", std::hex, g.lanes, std::dec, g.turn == 0 ? "" : waiting(g.wait), " at ",
                       place(w, g.pc));
    return text;
}

void Cluster::print(const std::string& text) { launch->output.print(number_, text); }

void Cluster::deadlock() {
    std::string where;
    const Warp* first = all_standing(where);
    const bool again = first->state == State::at_wgmma || first->state == State::at_registers;
    const Inst* at = first->waits_at != nullptr ? first->waits_at : again ? first->pc : first->pc - 1;
    fail(*first, *at, launch_failed, 0, concat("deadlock: no warp can go on", where));
}

void Cluster::block_exits(Block& b, const Warp& last) {
    for (const Warp& w : b.warps)
        if (w.state != State::done) return;
    b.exited = true;
    ++events;
    if (!launch->options.check_shared) return;
    transfers.block_exits(b);
    if (blocks.size() == 1) return;
    const uint32_t first = b.warps[0].number, count = static_cast<uint32_t>(b.warps.size());
    const auto complain = [&](const std::string& what) {
        fail(last, *(last.pc - 1), launch_failed, 0,
             concat("block rank ", b.rank,
                    " ends while another block of its cluster may still access its shared memory: ", what,
                    " (a barrier.cluster is missing)"));
    };
    if (!b.shadow.finished(first, count))
        complain(concat("warp ", b.shadow.other_warp() % count, " of block rank ", b.shadow.other_warp() / count,
                        " did at shared address 0x", std::hex, b.shadow.culprit()));
    std::vector<uint32_t> own(count);
    for (uint32_t k = 0; k < count; ++k) own[k] = first + k;
    for (const auto& [offset, m] : b.mbarriers)
        if (!clocks.known(m.arrived, own, first, first + count))
            complain(concat("an arrival at the mbarrier at 0x", std::hex, offset, " for which nobody waited"));
}

void Cluster::arrive(Warp& w, const Inst& i, bool relaxed) {
    if (const uint32_t twice = w.mask & (w.cluster_arrived | w.cluster_released); twice != 0)
        fail(w, i, launch_failed, std::countr_zero(twice), "arrives at barrier.cluster again, without a wait between");
    w.cluster_arrived |= w.mask;
    arrived_ += static_cast<uint32_t>(std::popcount(w.mask));
    if (launch->options.check_shared) clocks.release(w.number, arrived_with_, relaxed);
    complete_barrier();
}

void Cluster::complete_barrier() {
    for (const Warp* w : turns_)
        if (w->alive & ~w->cluster_arrived) return;
    for (Warp* w : turns_) w->cluster_released |= w->cluster_arrived, w->cluster_arrived = 0;
    passed_with_ = arrived_with_;
    arrived_ = 0;
    ++events;
}

void Cluster::wait(Warp& w, const Inst& i, bool relaxed) {
    if (const uint32_t none = w.mask & ~(w.cluster_arrived | w.cluster_released); none != 0)
        fail(w, i, launch_failed, std::countr_zero(none), "waits at barrier.cluster without having arrived");
    if (w.mask & ~w.cluster_released) {
        w.wait = {};
        w.overdue = false;
        wait_here(w, i);
        return;
    }
    w.cluster_released &= ~w.mask;
    w.turn = 0;
    if (launch->options.check_shared) clocks.acquire(w.number, passed_with_, relaxed);
}

}  // namespace emu
