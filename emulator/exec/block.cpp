// One thread block: its warps take turns, each until it waits at a barrier or is done.
#include "block.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

namespace emu {

namespace {

constexpr int64_t kTurn = 2000;  // jumps backwards, after which a warp that may spin lets the others run

uint32_t depth_bytes(const Code& c) {
    uint32_t most = 0;
    for (const Call& call : c.calls) most = std::max(most, depth_bytes(*call.callee));
    return most + c.register_bytes;
}

bool uses_warpgroups(const Code& c) {
    return !c.touch_at.empty() ||
           std::ranges::any_of(c.calls, [](const Call& call) { return uses_warpgroups(*call.callee); });
}

template <bool Watched>
void run_warp(Warp& w, Counters& counters) {
    w.stop = false;
    w.budget = kTurn;
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

void set_frame(Warp& w);

Block::Block(Launch& l) : launch(&l) {
    const uint32_t count = (l.threads() + kLanes - 1) / kLanes;
    warps.resize(count);
    const uint32_t bytes = depth_bytes(*l.code);
    for (Warp& w : warps) {
        w.registers = Buffer(bytes);
        w.specials = Buffer(special_count * 128);
        w.block = this;
    }
    shared = Buffer(l.shared_bytes());
    local = Buffer(size_t{l.program->local_bytes} * count * kLanes);
    uses_warpgroups_ = uses_warpgroups(*l.code);
    watched_ = uses_warpgroups_ && l.options.check_shared;
}

void Block::begin_warp(Warp& w, uint32_t index) {
    const Launch& l = *launch;
    w.index = index;
    const uint32_t threads = std::min<uint32_t>(kLanes, l.threads() - index * kLanes);
    w.alive = w.active = threads == kLanes ? kAll : (1u << threads) - 1;
    w.state = State::ready, w.barrier = -1;
    w.frames = {Frame{l.code, w.registers.data(), nullptr, nullptr}};
    w.others.clear(), w.quotas.clear(), w.copies.clear(), w.committed.fill(0);
    w.base[in_specials] = w.specials.data();
    set_frame(w);
    w.pc = l.code->insts.data();
    auto set = [&](Special s, auto f) {
        uint32_t* to = w.at<uint32_t>(static_cast<Ref>(s) * 128 | in_specials);
        for (uint32_t k = 0; k < kLanes; ++k) to[k] = f(k);
    };
    auto constant = [&](Special s, uint32_t x) { set(s, [=](uint32_t) { return x; }); };
    const uint32_t *b = l.block, first = index * kLanes;
    set(tid_x, [=](uint32_t k) { return (first + k) % b[0]; });
    set(tid_y, [=](uint32_t k) { return (first + k) / b[0] % b[1]; });
    set(tid_z, [=](uint32_t k) { return (first + k) / b[0] / b[1]; });
    for (uint32_t d = 0; d < 3; ++d) {
        constant(static_cast<Special>(ntid_x + d), b[d]);
        constant(static_cast<Special>(ctaid_x + d), id[d]);
        constant(static_cast<Special>(nctaid_x + d), l.grid[d]);
    }
    set(laneid, [](uint32_t k) { return k; });
    constant(warpid, index), constant(nwarpid, static_cast<uint32_t>(warps.size()));
    constant(smid, 0), constant(nsmid, 1), constant(gridid, static_cast<uint32_t>(l.number));
    set(lanemask_eq, [](uint32_t k) { return 1u << k; });
    set(lanemask_lt, [](uint32_t k) { return (1u << k) - 1; });
    set(lanemask_le, [](uint32_t k) { return (2u << k) - 1; });
    set(lanemask_gt, [](uint32_t k) { return ~((2u << k) - 1); });
    set(lanemask_ge, [](uint32_t k) { return ~((1u << k) - 1); });
    constant(dynamic_smem_size, l.dynamic_shared), constant(total_smem_size, l.shared_bytes());
}

void Block::begin(uint64_t number) {
    const Launch& l = *launch;
    id[0] = static_cast<uint32_t>(number % l.grid[0]);
    id[1] = static_cast<uint32_t>(number / l.grid[0] % l.grid[1]);
    id[2] = static_cast<uint32_t>(number / l.grid[0] / l.grid[1]);
    barriers.fill({});
    std::memset(shared.data(), 0xff, shared.size());  // NaN in every format
    if (l.options.check_shared) shadow.begin(l.shared_bytes(), static_cast<uint32_t>(warps.size()));
    for (uint32_t k = 0; k < warps.size(); ++k) begin_warp(warps[k], k);
    if (uses_warpgroups_) begin_warpgroups(*this);
    turns_.resize(warps.size());
    std::iota(turns_.begin(), turns_.end(), 0u);
    random_.state = l.options.shuffle + (number << 32);
}

void Block::run(uint64_t number) {
    begin(number);
    for (;;) {
        bool ran = false, left = false;
        if (launch->options.shuffle != 0) std::shuffle(turns_.begin(), turns_.end(), random_);
        for (const uint32_t turn : turns_) {
            Warp& w = warps[turn];
            if (w.state == State::ready) {
                watched_ ? run_warp<true>(w, counters) : run_warp<false>(w, counters);
                ran = true;
                if (w.state == State::done) {
                    check_left_over(w);
                    finish_barriers();
                }
            }
            left = left || w.state != State::done;
        }
        if (!left) return;
        if (!ran) deadlock();
        watch_time();
    }
}

// A warp that waits in a loop for what never comes would run on for ever.
void Block::watch_time() {
    const int limit = launch->options.seconds;
    if (limit == 0 || std::chrono::steady_clock::now() - launch->begun < std::chrono::seconds(limit)) return;
    std::string where;
    const Warp* first = nullptr;
    for (const Warp& w : warps) {
        if (w.state == State::done) continue;
        if (first == nullptr) first = &w;
        where += concat("; warp ", w.index, " stands at ", place(w, w.pc));
    }
    fail(*first, *first->pc, launch_failed, 0, concat("no end after ", limit, " seconds", where));
}

void Block::complete(Barrier& b, int number) {
    uint32_t joined = 0;
    for (Warp& w : warps) {
        if (w.state != State::at_barrier || w.barrier != number) continue;
        w.state = State::ready, w.barrier = -1, w.ones = b.ones, w.zeros = b.zeros;
        joined |= 1u << (w.index & 31);
    }
    shadow.barrier(joined | b.passed);
    b = {};
    ++counters.barriers;
}

// A warp that has left no longer counts at barriers of the whole block; that it is missing there is a mistake.
void Block::finish_barriers() {
    for (int n = 0; n < static_cast<int>(barriers.size()); ++n)
        if (barriers[static_cast<size_t>(n)].expected != 0 && !barriers[static_cast<size_t>(n)].counted)
            for (const Warp& w : warps)
                if (w.state == State::at_barrier && w.barrier == n) {
                    std::string gone;
                    for (const Warp& o : warps)
                        if (o.state == State::done) gone += concat(gone.empty() ? "" : ", ", o.index);
                    fail(w, *(w.pc - 1), launch_failed, 0,
                         concat("waits at barrier ", n, " of the whole block, which warps ", gone,
                                " left without it (a mismatched barrier)"));
                }
}

void Block::deadlock() {
    std::string where;
    const Warp* first = nullptr;
    const Inst* at_first = nullptr;
    for (const Warp& w : warps) {
        if (w.state == State::done) continue;
        const bool barrier = w.state == State::at_barrier;
        const Inst* at = barrier ? w.pc - 1 : w.pc;
        if (first == nullptr) first = &w, at_first = at;
        where += concat("; warp ", w.index, " waits ", barrier ? concat("at barrier ", w.barrier) : awaited(w), ", ",
                        place(w, at));
    }
    fail(*first, *at_first, launch_failed, 0, concat("deadlock: no warp can go on", where));
}

void arrive(Warp& w, const Inst& i, uint32_t number, uint32_t count, bool waits) {
    Block& block = *w.block;
    if (number >= block.barriers.size())
        fail(w, i, launch_failed, std::countr_zero(w.mask), concat("barrier ", number, " is not one of 16"));
    Barrier& b = block.barriers[number];
    const uint32_t all = static_cast<uint32_t>(block.warps.size()) * kLanes, expected = count ? count : all;
    if (count % kLanes != 0)
        fail(w, i, launch_failed, std::countr_zero(w.mask),
             concat("barrier ", number, " for ", count, " threads, which is no multiple of 32"));
    if (b.expected != 0 && b.expected != expected)
        fail(w, i, launch_failed, std::countr_zero(w.mask),
             concat("barrier ", number, " is for ", expected, " threads here, for ", b.expected, " elsewhere"));
    const uint32_t threads = std::min<uint32_t>(kLanes, block.launch->threads() - w.index * kLanes);
    if (count == 0 && static_cast<uint32_t>(std::popcount(w.alive)) != threads)
        fail(w, i, launch_failed, std::countr_zero(w.mask),
             concat("waits at barrier ", number, " of the whole block, which ",
                    threads - static_cast<uint32_t>(std::popcount(w.alive)),
                    " threads of its warp left without it (a mismatched barrier)"));
    b.expected = expected, b.counted = count != 0;
    b.arrived += kLanes;
    if (waits) {
        w.state = State::at_barrier, w.barrier = static_cast<int>(number), w.stop = true;
    } else {
        b.passed |= 1u << (w.index & 31);
    }
    if (b.arrived >= b.expected) {
        block.complete(b, static_cast<int>(number));
        return;
    }
    if (!b.counted)
        for (const Warp& o : block.warps)
            if (o.state == State::done) return block.finish_barriers();
}

}  // namespace emu
