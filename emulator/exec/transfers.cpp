#include "transfers.h"

#include <cstring>

#include "../memory/access.h"
#include "../memory/tensormap.h"
#include "../ops/lanes.h"
#include "cluster.h"

namespace emu {

namespace {

bool signals(const Transfer& t, Place at) {
    return t.kind != Transfer::to_global && t.barrier == at.offset && (t.blocks >> at.block->rank & 1);
}

}  // namespace

void land_copy(Warp& w, AsyncCopy& c, int lane, Stamp as_of) {
    Block& b = *w.block;
    const auto k = static_cast<size_t>(lane);
    if (!(c.early >> lane & 1)) move_copy(c, b.shared.data(), lane);
    c.waiting &= ~(1u << lane);
    if (!b.launch->options.check_shared) return;
    b.shadow.landed(c.shared[k], c.bytes);
    touch_shared(w, *c.inst, lane, c.shared[k], c.bytes, true);
    if (as_of != 0) b.shadow.set_writer(as_of, c.shared[k], c.bytes);
}

void Transfers::begin(Cluster& c) {
    cluster_ = &c;
    list_.clear();
}

void Transfers::issue(Transfer t) {
    list_.push_back(std::move(t));
    ++cluster_->events;
}

void Transfers::drop_done() {
    std::erase_if(list_, [](const Transfer& t) { return t.blocks == 0; });
}

void Transfers::land_tile(const Transfer& t, char* to) {
    const auto put = [&](uint32_t offset, const char* from, uint32_t bytes) {
        for_chunks(t.shared, offset, bytes, t.swizzle,
                   [&](uint32_t at, uint32_t tile, uint32_t n) { std::memcpy(to + at, from + (tile - offset), n); });
    };
    std::vector<char> row;
    if (t.fills) {
        row.resize(t.bytes);
        fill_outside(t.type, row.data(), t.bytes);
        put(0, row.data(), t.bytes);
    }
    for (const Piece& p : t.pieces) {
        if (!converts(t.type)) {
            put(p.offset, p.global, p.bytes);
            continue;
        }
        row.assign(p.global, p.global + p.bytes);
        convert_elements(t.type, row.data(), p.bytes);
        put(p.offset, row.data(), p.bytes);
    }
}

void Transfers::land(Transfer& t, uint32_t rank) {
    Block& b = *cluster_->blocks[rank];
    Warp& w = *t.warp;
    const Place at{&b, t.barrier};
    t.blocks &= ~(1u << rank);
    if (t.kind == Transfer::arrival) {
        const uint32_t seen = t.knows.seen.empty() ? 0 : t.knows.seen[w.number];
        for (AsyncCopy& c : w.copies)
            if (c.serial < t.serial && (c.waiting >> t.lane & 1))
                land_copy(w, c, t.lane, seen << Clocks::kIndexBits | w.number);
        std::erase_if(w.copies, [](const AsyncCopy& c) { return c.waiting == 0; });
        mbarrier_arrive(w, *t.inst, t.lane, at, 1, false, true, false, &t.knows);
        return;
    }
    char* to = b.shared.data();
    const char* from = t.kind == Transfer::between ? t.source.block->shared.data() + t.source.offset : t.data.data();
    if (t.kind == Transfer::to_shared)
        land_tile(t, to);
    else if (t.combine != nullptr)
        t.combine(to + t.shared, from, t.bytes);
    else
        std::memmove(to + t.shared, from, t.bytes);
    const Stamp stamp = mbarrier_landed(w, *t.inst, t.lane, at, t.bytes);
    if (!b.launch->options.check_shared) return;
    b.shadow.async_landed(stamp, t.shared, t.bytes);
    if (t.kind == Transfer::between) t.source.block->shadow.set_reading(t.source.offset, t.bytes, false);
}

bool Transfers::demand(Place at) {
    const MbarrierState s = mbarrier_state(at);
    std::vector<Transfer*> data, arrivals;
    int64_t tx = s.tx;
    for (Transfer& t : list_) {
        if (!signals(t, at)) continue;
        if (t.kind == Transfer::arrival) {
            if (arrivals.size() < s.pending) arrivals.push_back(&t);
        } else if (tx != 0) {
            data.push_back(&t);
            tx -= t.bytes;
        }
    }
    if (tx != 0 || arrivals.size() < s.pending || data.size() + arrivals.size() == 0) return false;
    for (Transfer* t : data) land(*t, at.block->rank);
    for (Transfer* t : arrivals) land(*t, at.block->rank);
    drop_done();
    return mbarrier_state(at).parity != s.parity;
}

void Transfers::read_source(Transfer& t) {
    if (t.read) return;
    t.read = true;
    t.data.resize(t.bytes);
    const char* from = t.source.block->shared.data();
    for_chunks(t.shared, 0, t.bytes, t.swizzle,
               [&](uint32_t at, uint32_t tile, uint32_t n) { std::memcpy(t.data.data() + tile, from + at, n); });
}

void Transfers::write_global(Transfer& t) {
    for (const Piece& p : t.pieces) {
        if (t.combine != nullptr)
            t.combine(p.global, t.data.data() + p.offset, p.bytes);
        else
            std::memcpy(p.global, t.data.data() + p.offset, p.bytes);
    }
    t.pieces.clear();
}

void Transfers::wait_groups(Warp& w, uint32_t lanes, uint32_t pending, bool read_only) {
    for (Transfer& t : list_) {
        if (t.kind != Transfer::to_global || t.warp != &w || !(lanes >> t.lane & 1)) continue;
        const uint32_t groups = w.bulk_committed[static_cast<size_t>(t.lane)];
        if (groups < pending || t.group >= groups - pending) continue;
        read_source(t);
        if (!t.waited && w.block->launch->options.check_shared) w.block->shadow.set_reading(t.shared, t.bytes, false);
        t.waited = true;
        if (!read_only) write_global(t), t.blocks = 0;
    }
    drop_done();
    ++cluster_->events;
}

void Transfers::maybe_land(Random& random) {
    for (Transfer& t : list_) {
        if (random() % 4 != 0) continue;
        if (t.kind == Transfer::to_global)
            t.read ? write_global(t) : read_source(t);
        else if (t.blocks != 0)
            land(t, static_cast<uint32_t>(std::countr_zero(t.blocks)));
    }
    drop_done();
    for (const auto& b : cluster_->blocks)
        for (Warp& w : b->warps)
            for (AsyncCopy& c : w.copies) {
                const uint32_t now = c.waiting & ~c.early & static_cast<uint32_t>(random() & random());
                for_lanes(now, [&](int l) { move_copy(c, b->shared.data(), l); });
                c.early |= now;
            }
}

void Transfers::refuse_signals(Warp& w, const Inst& i, int lane, Place at) const {
    for (const Transfer& t : list_)
        if (signals(t, at))
            fail(w, i, launch_failed, lane,
                 concat("invalidates the mbarrier at shared address 0x", std::hex, at.offset, std::dec,
                        " while a copy is to complete at it, issued at ", place(*t.warp, t.inst)));
}

void Transfers::block_exits(Block& b) {
    for (const Transfer& t : list_) {
        if (t.kind == Transfer::to_global && t.source.block == &b && !t.waited)
            fail(*t.warp, *t.inst, launch_failed, t.lane,
                 "its block ends while this bulk copy may still read the block's shared memory "
                 "(cp.async.bulk.wait_group, or the commit before it, is missing)");
        if (t.kind == Transfer::between && t.source.block == &b)
            fail(*t.warp, *t.inst, launch_failed, t.lane,
                 "its block ends while this copy still reads the block's shared memory");
        if (t.kind != Transfer::to_global && (t.blocks >> b.rank & 1))
            fail(*t.warp, *t.inst, launch_failed, t.lane,
                 concat("block rank ", b.rank, " ends while this copy is on its way to its shared memory ",
                        "(nobody waited for its mbarrier)"));
    }
}

void Transfers::finish() {
    for (Transfer& t : list_)
        if (t.kind == Transfer::to_global) read_source(t), write_global(t);
    list_.clear();
}

uint32_t Transfers::under_way(Place at, uint32_t& arrivals) const {
    uint32_t bytes = 0;
    arrivals = 0;
    for (const Transfer& t : list_)
        if (signals(t, at)) t.kind == Transfer::arrival ? ++arrivals : bytes += t.bytes;
    return bytes;
}

}  // namespace emu
