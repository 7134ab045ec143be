// One thread block: its memory, its warps as they begin, and its barriers.
#include "block.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cluster.h"

namespace emu {

void set_frame(Warp& w);

Block::Block(Launch& l, Cluster& c, uint32_t r) : launch(&l), cluster(&c), rank(r) {
    const uint32_t count = (l.threads() + kLanes - 1) / kLanes;
    warps.resize(count);
    for (Warp& w : warps) {
        w.specials = Buffer(special_count * 128);
        w.block = this;
    }
    shared = Buffer(l.shared_bytes());
    local = Buffer((size_t{l.program->local_bytes} + l.program->stack_bytes) * count * kLanes);
    uses_warpgroups = l.code->any_wgmma;
    watched = uses_warpgroups && l.options.check_shared;
}

void Block::begin_warp(Warp& w, uint32_t index) {
    const Launch& l = *launch;
    w.index = index;
    const uint32_t threads = std::min<uint32_t>(kLanes, l.threads() - index * kLanes);
    w.alive = w.active = threads == kLanes ? kAll : (1u << threads) - 1;
    w.state = State::ready, w.barrier = -1;
    w.others.clear(), w.quotas.clear(), w.copies.clear(), w.committed.fill(0), w.bulk_committed.fill(0);
    w.number = rank * static_cast<uint32_t>(warps.size()) + index;
    w.waits_at = nullptr, w.overdue = false, w.turn = w.turns = 0, w.wait = {}, w.tried.clear();
    w.cluster_arrived = w.cluster_released = 0;
    w.frame = {};
    w.frame = w.frames.enter(*l.code, nullptr, nullptr, nullptr);
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
        constant(static_cast<Special>(cluster_ctaid_x + d), id[d] % l.cluster[d]);
        constant(static_cast<Special>(cluster_nctaid_x + d), l.cluster[d]);
        constant(static_cast<Special>(clusterid_x + d), id[d] / l.cluster[d]);
        constant(static_cast<Special>(nclusterid_x + d), l.grid[d] / l.cluster[d]);
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
    constant(cluster_ctarank, rank), constant(cluster_nctarank, l.cluster_blocks());
    constant(is_explicit_cluster, l.explicit_cluster ? kAll : 0);
    constant(dynamic_smem_size, l.dynamic_shared), constant(total_smem_size, l.own_shared());
    constant(reserved_smem_begin, l.reserved_begin()),
        constant(reserved_smem_end, l.reserved_begin() + kReservedShared);
    constant(reserved_smem_1, l.reserved_begin() + kReservedShared / 2);
}

void Block::begin() {
    const Launch& l = *launch;
    barriers.fill({});
    mbarriers.clear();
    flags.clear();
    exited = false;
    std::memset(shared.data(), 0xff, shared.size());  // NaN in every format
    if (l.options.check_shared) shadow.begin(l.shared_bytes(), cluster->clocks);
    if (l.code->any_reserved) {
        std::memset(shared.data() + l.reserved_begin(), 0, kReservedShared);
        if (l.options.check_shared) shadow.set_written(l.reserved_begin(), kReservedShared);
    }
    for (uint32_t k = 0; k < warps.size(); ++k) begin_warp(warps[k], k);
    if (uses_warpgroups) begin_warpgroups(*this);
}

void Block::complete(Barrier& b, int number) {
    uint32_t joined[kLanes], count = 0;
    for (Warp& w : warps) {
        const bool waits = w.state == State::at_barrier && w.barrier == number;
        if (waits) w.state = State::ready, w.barrier = -1, w.ones = b.ones, w.zeros = b.zeros;
        if (waits) joined[count++] = w.number;
    }
    if (launch->options.check_shared && count != 0) {
        cluster->order.barrier({joined, count});
        for (uint32_t k = 0; k < count; ++k) cluster->clocks.settle(joined[k]);
        cluster->clocks.acquire(joined[0], b.known, false);
        cluster->clocks.barrier({joined, count});
    }
    ++cluster->events;
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
        if (block.launch->options.check_shared) {
            block.cluster->order.barrier({&w.number, 1});
            block.cluster->clocks.release(w.number, b.known, false);  // what it does from here on nobody learns of
        }
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
