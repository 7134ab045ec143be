// cp.async and its groups. Data lands when a wait demands it and no sooner, so that a missing wait shows.
#include "../exec/cluster.h"
#include "../memory/access.h"
#include "../memory/spaces.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

void copy(Warp& w, const Inst& i) {
    AsyncCopy c;
    c.serial = w.copies_made++, c.waiting = w.mask, c.bytes = i.bytes, c.inst = &i;
    uint64_t from[kLanes], to[kLanes];
    addresses(w, i.a, i.flags & kWideAddress, i.imm, to);
    addresses(w, i.b, true, static_cast<int32_t>(i.extra), from);
    uint32_t valid[kLanes];
    const uint32_t* given = i.c == kNoRef ? nullptr : w.at<uint32_t>(i.c);
    const uint32_t p = i.d == kNoRef ? 0 : w.predicate(i.d) ^ (i.flags & kNegatedC ? kAll : 0);  // ignore-src
    Block& b = *w.block;
    for_lanes(w.mask, [&](int l) {
        to[l] &= ~kWindowBits;
        valid[l] = p >> l & 1 ? 0 : given ? given[l] : c.bytes;
        if (valid[l] > c.bytes)
            fail(w, i, launch_failed, l, concat("cp.async of ", c.bytes, " bytes is to read ", valid[l]));
        if ((from[l] | to[l]) & (c.bytes - 1))
            fail(w, i, misaligned_address, l,
                 concat("cp.async of ", c.bytes, " bytes from address ", std::hex, "0x", from[l], " to shared 0x",
                        to[l], std::dec, " (misaligned)"));
        check_shared_bounds(w, i, l, to[l], c.bytes);
        const auto k = static_cast<size_t>(l);
        c.group[k] = w.committed[k], c.shared[k] = static_cast<uint32_t>(to[l]), c.valid[k] = valid[l];
        c.from[k] = reinterpret_cast<const char*>(from[l]);
        if (b.launch->options.check_shared) b.shadow.set_in_flight(c.shared[k], c.bytes);
    });
    check_global(w, i, from, valid, false);
    if (b.launch->options.count) {
        b.counters.async_bytes += static_cast<uint64_t>(std::popcount(w.mask)) * c.bytes;
        count_conflicts(b.counters, to, w.mask, c.bytes);
    }
    w.copies.push_back(c);
}

// Lands the copies of the lanes in the mask whose group is older than `before(lane)`.
template <class F>
void land(Warp& w, F before) {
    const bool checks = w.block->launch->options.check_shared;
    char* shared = w.block->shared.data();
    for (AsyncCopy& c : w.copies) {
        for_lanes(c.waiting & w.mask, [&](int l) {
            if (c.group[static_cast<size_t>(l)] >= before(l)) return;
            if (checks) return land_copy(w, c, l, 0);
            if (!(c.early >> l & 1)) move_copy(c, shared, l);
            c.waiting &= ~(1u << l);
        });
    }
    std::erase_if(w.copies, [](const AsyncCopy& c) { return c.waiting == 0; });
}

}  // namespace

void cp(Builder& b) {
    if (b.take("reduce")) return bulk_reduce(b);
    if (!b.take("async")) b.unsupported("copy");
    if (b.take("bulk")) return bulk_copy(b);
    if (b.take("mbarrier")) return cp_async_mbarrier(b);
    if (b.take("commit_group")) {
        b.done();
        b.emit([](Warp& w, const Inst&) { for_lanes(w.mask, [&](int l) { ++w.committed[static_cast<size_t>(l)]; }); },
               Class::async);
        return;
    }
    if (b.take("wait_all")) {
        b.done();
        b.emit([](Warp& w, const Inst&) { land(w, [](int) { return ~0u; }); }, Class::async);
        return;
    }
    if (b.take("wait_group")) {
        b.done();
        if (b.operand(0).kind != Operand::integer) b.unsupported("a number of groups that is no number");
        const uint64_t pending = b.operand(0).bits;
        Inst& i = b.emit(
            [](Warp& w, const Inst& i) {
                const auto pending = static_cast<uint32_t>(i.imm);
                land(w, [&](int l) {
                    const uint32_t done = w.committed[static_cast<size_t>(l)];
                    return done > pending ? done - pending : 0;
                });
            },
            Class::async);
        i.imm = static_cast<int64_t>(pending);
        return;
    }
    if (!b.take("ca") && !b.take("cg")) b.unsupported("copy");
    if (!(b.take("shared") || b.take("shared::cta")) || !b.take("global")) b.unsupported("copy");
    const uint32_t operands = b.operands() - (b.take("L2::cache_hint") ? 1 : 0);  // the last one is a policy
    while (b.take_prefix("L2::")) {
    }
    b.done();
    if (operands < 3 || operands > 4) b.unsupported("number of operands");
    if (b.operand(2).kind != Operand::integer) b.unsupported("a size that is no number");
    const uint64_t bytes = b.operand(2).bits;
    if (bytes != 4 && bytes != 8 && bytes != 16) b.unsupported("size");
    Inst to, from;
    b.address(to, b.operand(0)), b.address(from, b.operand(1));
    if (!(from.flags & kWideAddress)) b.unsupported("a global address of 32 bits");
    Ref size = kNoRef, ignore = kNoRef;
    bool negated = false;
    if (operands > 3) {
        const Operand& o = b.operand(3);
        const Symbol* s = o.kind == Operand::symbol ? b.find(o.name) : nullptr;
        if (s != nullptr && s->kind == Symbol::reg && s->type == Type::pred)
            ignore = s->ref, negated = o.negated;
        else
            size = b.source(o, Type::u32);
    }
    if (b.operands() > operands) b.source(b.operand(operands), Type::b64);
    Inst& i = b.emit(copy, Class::async);
    i.a = to.a, i.imm = to.imm, i.flags = to.flags;
    i.b = from.a, i.extra = static_cast<uint32_t>(from.imm);
    i.c = size, i.d = ignore, i.bytes = static_cast<uint8_t>(bytes);
    if (negated) i.flags |= kNegatedC;
}

}  // namespace emu::ops
