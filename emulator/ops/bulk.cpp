// cp.async.bulk and cp.reduce.async.bulk without tensor maps, and the groups of bulk copies.
#include "bulk.h"

#include "../memory/spaces.h"
#include "combine.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

void need_multiple(Warp& w, const Inst& i, int lane, const char* what, uint64_t x, uint64_t of) {
    if (x % of != 0)
        fail(w, i, misaligned_address, lane,
             concat("bulk copy: ", what, " 0x", std::hex, x, std::dec, " is no multiple of ", of, " (misaligned)"));
}

void check_rows(Warp& w, const Inst& i, int lane, const std::vector<Piece>& rows, bool store) {
    const Launch& l = *w.block->launch;
    Counters& c = w.block->counters;
    uint64_t bytes = 0, sectors = 0, former = 0;
    for (const Piece& p : rows) {
        const auto at = reinterpret_cast<uint64_t>(p.global);
        if (l.options.check_memory && !is_valid(l, at, p.bytes))
            fail(w, i, illegal_address, lane,
                 concat("bulk copy ", store ? "writes " : "reads ", p.bytes, " bytes of global memory at address 0x",
                        std::hex, at, std::dec, ", out of bounds: ", describe(l, at)));
        const uint64_t first = at >> 5, last = (at + p.bytes - 1) >> 5;
        sectors += last - first + (first == former ? 0 : 1);
        bytes += p.bytes, former = last;
    }
    if (!l.options.count) return;
    (store ? c.global_bytes_written : c.global_bytes_read) += bytes;
    (store ? c.global_sectors_written : c.global_sectors_read) += sectors;
}

namespace {

bool checked(const Warp& w) { return w.block->launch->options.check_shared; }

void count(Warp& w, uint64_t bytes) {
    if (w.block->launch->options.count) w.block->counters.async_bytes += bytes;
}

// Reads of the source are checked now, though they happen later: from now on it has to stay as it is.
void read_from(Warp& w, const Inst& i, int lane, Place from, uint32_t bytes) {
    touch_async(w, i, lane, from, bytes);
    if (checked(w)) from.block->shadow.set_reading(from.offset, bytes, true);
}

}  // namespace

void issue_to_shared(Warp& w, const Inst& i, int lane, const AsyncForm& f, Transfer t) {
    Cluster& c = *w.block->cluster;
    const Place to = shared_place(w, i, lane, value(w, f.to, lane), t.bytes, f.remote);
    const Place barrier = shared_place(w, i, lane, value(w, f.barrier, lane), 8, f.remote);
    need_multiple(w, i, lane, "the mbarrier's address", barrier.offset, 8);
    t.inst = &i, t.warp = &w, t.lane = lane;
    t.shared = to.offset, t.barrier = barrier.offset;
    if (f.mask != kNoRef) {
        t.blocks = w.at<uint16_t>(f.mask)[lane];
        if (t.blocks >> c.blocks.size() != 0)
            fail(w, i, launch_failed, lane,
                 concat("multicast to blocks 0x", std::hex, t.blocks, std::dec, " of a cluster of ", c.blocks.size()));
        if (t.blocks == 0) return;
    } else {
        t.blocks = 1u << to.block->rank;
        if (barrier.block != to.block)
            fail(w, i, launch_failed, lane, "the mbarrier is not in the block that the copy goes to");
    }
    for (const Piece& p : t.pieces)
        touch_global(w, i, lane, reinterpret_cast<uint64_t>(p.global), p.bytes, Touch::read);
    for_lanes(t.blocks, [&](int rank) {
        Block& b = *c.blocks[static_cast<size_t>(rank)];
        if (b.exited)
            fail(w, i, illegal_address, lane,
                 concat("copies to shared memory of block rank ", rank, ", which has ended"));
        mbarrier_check_signal(w, i, lane, {&b, barrier.offset});
        if (!checked(w)) return;
        if (const char* wrong = b.shadow.async_write(w.number, to.offset, t.bytes, true, t.combine != nullptr))
            shared_error(w, i, lane, {&b, to.offset}, wrong);
    });
    if (t.kind == Transfer::between) {
        t.source = shared_place(w, i, lane, value(w, f.from, lane), t.bytes, false);
        read_from(w, i, lane, t.source, t.bytes);
    }
    count(w, uint64_t{t.bytes} * static_cast<uint32_t>(std::popcount(t.blocks)));
    c.transfers.issue(std::move(t));
}

void issue_to_global(Warp& w, const Inst& i, int lane, const AsyncForm& f, Transfer t) {
    t.source = shared_place(w, i, lane, value(w, f.from, lane), t.bytes, false);
    t.kind = Transfer::to_global, t.inst = &i, t.warp = &w, t.lane = lane;
    t.shared = t.source.offset, t.blocks = 1, t.group = w.bulk_committed[static_cast<size_t>(lane)];
    // what lies outside of the tensor is read by nobody
    for (const Piece& p : t.pieces) {
        for_chunks(t.shared, p.offset, p.bytes, t.swizzle,
                   [&](uint32_t at, uint32_t, uint32_t n) { read_from(w, i, lane, {t.source.block, at}, n); });
        touch_global(w, i, lane, reinterpret_cast<uint64_t>(p.global), p.bytes,
                     t.combine != nullptr ? Touch::update : Touch::write);
    }
    count(w, t.bytes);
    w.block->cluster->transfers.issue(std::move(t));
}

namespace {

void run_copy(Warp& w, const Inst& i) {
    const AsyncForm& f = *w.code->forms[i.extra];
    for_lanes(w.mask, [&](int l) {
        Transfer t;
        t.bytes = w.at<uint32_t>(f.size)[l], t.combine = f.combine;
        const uint64_t from = value(w, f.from, l), to = f.prefetches ? 0 : value(w, f.to, l);
        need_multiple(w, i, l, "the size", t.bytes, 16);
        need_multiple(w, i, l, "the source's address", from, 16);
        need_multiple(w, i, l, "the destination's address", to, 16);
        if (f.loads || f.prefetches) {
            if (t.bytes != 0) t.pieces.push_back({reinterpret_cast<char*>(from), 0, t.bytes});
            check_rows(w, i, l, t.pieces, false);
            if (!f.prefetches) issue_to_shared(w, i, l, f, std::move(t));
        } else if (f.barrier.ref != kNoRef) {
            t.kind = Transfer::between;
            issue_to_shared(w, i, l, f, std::move(t));
        } else {
            if (t.bytes != 0) t.pieces.push_back({reinterpret_cast<char*>(to), 0, t.bytes});
            check_rows(w, i, l, t.pieces, true);
            issue_to_global(w, i, l, f, std::move(t));
        }
    });
}

void decode_copy(Builder& b, bool reduces) {
    AsyncForm f;
    f.prefetches = b.take("prefetch");
    if (f.prefetches && !b.take("L2")) b.unsupported("prefetch");
    const bool global = b.take("global"), cluster = b.take("shared::cluster"), own = b.take("shared::cta");
    const bool signals = b.take("mbarrier::complete_tx::bytes"), grouped = b.take("bulk_group");
    f.loads = global && signals && !reduces;
    f.remote = cluster;
    const bool good = f.prefetches ? global && !own && !cluster && !signals && !grouped && !reduces
                      : signals    ? (f.loads && cluster != own) || (!global && cluster && own)
                                   : grouped && global && own && !cluster;
    if (!good) b.unsupported("directions or completion");
    const bool multicast = b.take("multicast::cluster"), hint = b.take("L2::cache_hint");
    if (multicast && !(f.loads && cluster)) b.unsupported("multicast");
    if (reduces) {
        const Name op = b.take_any({"add", "min", "max", "inc", "dec", "and", "or", "xor"});
        b.take("noftz");
        f.combine = find_combine(op, b.need_type());
        if (f.combine == nullptr) b.unsupported("operation or type");
    }
    b.done();
    uint32_t n = 0;
    if (!f.prefetches) f.to = b.place(b.operand(n++));
    f.from = b.place(b.operand(n++));
    f.size = b.source(b.operand(n++), Type::u32);
    if (signals) f.barrier = b.place(b.operand(n++));
    if (multicast) f.mask = b.source(b.operand(n++), Type::b16);
    if (hint) b.source(b.operand(n++), Type::b64);
    if (n != b.operands()) b.unsupported("number of operands");
    const uint32_t at = b.add_form(std::move(f));
    b.emit(run_copy, Class::async).extra = at;
}

void commit_group(Builder& b) {
    b.done();
    b.emit([](Warp& w, const Inst&) { for_lanes(w.mask, [&](int l) { ++w.bulk_committed[static_cast<size_t>(l)]; }); },
           Class::async);
}

void wait_group(Builder& b) {
    const bool read = b.take("read");
    b.done();
    if (b.operand(0).kind != Operand::integer) b.unsupported("a number of groups that is no number");
    const uint64_t pending = b.operand(0).bits;
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            w.block->cluster->transfers.wait_groups(w, w.mask, static_cast<uint32_t>(i.imm), i.extra != 0);
        },
        Class::async);
    i.imm = static_cast<int64_t>(pending), i.extra = read;
}

}  // namespace

void bulk_copy(Builder& b) {
    if (b.take("commit_group")) return commit_group(b);
    if (b.take("wait_group")) return wait_group(b);
    if (b.take("tensor")) return tensor_copy(b, false);
    decode_copy(b, false);
}

void bulk_reduce(Builder& b) {
    if (!b.take("async") || !b.take("bulk")) b.unsupported("reduction");
    if (b.take("tensor")) return tensor_copy(b, true);
    decode_copy(b, true);
}

}  // namespace emu::ops
