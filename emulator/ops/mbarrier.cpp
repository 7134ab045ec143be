// mbarrier.*, and cp.async.mbarrier.arrive.
#include "../exec/cluster.h"
#include "../memory/access.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

enum Extra : uint32_t {
    kRelaxed = 1,
    kDrop = 2,
    kNoComplete = 4,
    kExpect = 8,
    kParity = 16,
    kNoinc = 32,
    kBlocks = 64
};

// Calls f(lane, the object) for the lanes of the mask.
template <class F>
void each_object(Warp& w, const Inst& i, F f) {
    uint64_t address[kLanes];
    addresses(w, i.a, i.flags & kWideAddress, i.imm, address);
    for_lanes(w.mask, [&](int l) {
        if (address[l] % 8 != 0)
            fail(w, i, misaligned_address, l,
                 concat("the mbarrier's address 0x", std::hex, address[l], " is no multiple of 8 (misaligned)"));
        f(l, shared_place(w, i, l, address[l], 8, i.space != Space::shared));
    });
}

void take_order(Builder& b, uint32_t& extra) {
    if (b.take("relaxed")) extra |= kRelaxed;
    b.take_any({"release", "acquire"});
    b.take_any({"cta", "cluster"});
}

Space take_barrier_space(Builder& b) {
    if (b.take("shared::cta") || b.take("shared")) return Space::shared;
    return b.take("shared::cluster") ? Space::cluster : Space::generic;
}

Inst& finish(Builder& b, Run run, Space space, const Inst& at, uint32_t extra) {
    Inst& i = b.emit(run, Class::barrier);
    i.a = at.a, i.imm = at.imm, i.flags = at.flags, i.space = space, i.extra = extra, i.bytes = 8;
    return i;
}

void need_operands(Builder& b, uint32_t least, uint32_t most) {
    if (b.operands() < least || b.operands() > most) b.unsupported("number of operands");
}

// The end of the modifiers and a first operand that names the object.
Space take_object(Builder& b, uint32_t operands, Inst& at) {
    const Space space = take_barrier_space(b);
    if (!b.take("b64")) b.unsupported("type");
    b.done(), need_operands(b, operands, operands);
    b.address(at, b.operand(0));
    return space;
}

void init(Builder& b) {
    Inst at;
    const Space space = take_object(b, 2, at);
    const Ref count = b.source(b.operand(1), Type::u32);
    finish(
        b,
        [](Warp& w, const Inst& i) {
            each_object(w, i, [&](int l, Place at) { mbarrier_init(w, i, l, at, w.at<uint32_t>(i.b)[l]); });
        },
        space, at, 0)
        .b = count;
}

void inval(Builder& b) {
    Inst at;
    const Space space = take_object(b, 1, at);
    finish(
        b, [](Warp& w, const Inst& i) { each_object(w, i, [&](int l, Place at) { mbarrier_inval(w, i, l, at); }); },
        space, at, 0);
}

// expect_tx, and complete_tx that a program makes up.
void count_bytes(Builder& b, bool expects) {
    uint32_t extra = 0;
    take_order(b, extra);
    Inst at;
    const Space space = take_object(b, 2, at);
    const Ref bytes = b.source(b.operand(1), Type::u32);
    finish(
        b,
        [](Warp& w, const Inst& i) {
            each_object(w, i, [&](int l, Place at) {
                const int64_t bytes = w.at<uint32_t>(i.b)[l];
                mbarrier_expect(w, i, l, at, i.extra & kExpect ? bytes : -bytes);
            });
        },
        space, at, expects ? uint32_t{kExpect} : 0u)
        .b = bytes;
}

void run_arrive(Warp& w, const Inst& i) {
    uint64_t* state = i.d == kNoRef ? nullptr : w.at<uint64_t>(i.d);
    each_object(w, i, [&](int l, Place at) {
        if (state != nullptr && at.block != w.block)
            fail(w, i, launch_failed, l, "an arrival at an mbarrier of another block has no state to return");
        uint32_t count = w.at<uint32_t>(i.b)[l];
        if (i.extra & kExpect) {
            mbarrier_expect(w, i, l, at, count);
            count = 1;
        }
        const uint64_t before =
            mbarrier_arrive(w, i, l, at, count, i.extra & kDrop, !(i.extra & kNoComplete), i.extra & kRelaxed);
        if (state != nullptr) state[l] = before;
    });
}

void arrive(Builder& b, bool drops) {
    uint32_t extra = drops ? uint32_t{kDrop} : 0u;
    if (b.take("expect_tx")) extra |= kExpect;
    if (b.take("noComplete")) extra |= kNoComplete;
    take_order(b, extra);
    const Space space = take_barrier_space(b);
    if (!b.take("b64")) b.unsupported("type");
    b.done();
    uint32_t n = 0;
    Ref state = kNoRef;
    if (b.operand(0).kind != Operand::address) {  // with nowhere to put the state there may be no operand for it
        if (b.operand(0).name != "_") {
            if (space == Space::cluster) b.unsupported("a state of a barrier in shared::cluster");
            state = b.destination(b.operand(0), 8);
        }
        n = 1;
    }
    const bool counts = b.operands() > n + 1;
    if (!counts && (extra & (kExpect | kNoComplete))) b.unsupported("number of operands");
    need_operands(b, n + 1, n + 2);
    Inst at;
    b.address(at, b.operand(n));
    const Ref count = counts ? b.source(b.operand(n + 1), Type::u32) : b.constant(1, 4);
    Inst& i = finish(b, run_arrive, space, at, extra);
    i.d = state, i.b = count;
}

// A wait may fail as long as its phase is not complete. Here the first one does, so that a program that does not ask
// again goes on too early.
bool again(Warp& w, const Tried& t) {
    constexpr size_t kMost = 16;  // barriers that are asked in turn
    for (const Tried& o : w.tried)
        if (o.inst == t.inst && o.at.block == t.at.block && o.at.offset == t.at.offset && o.parity == t.parity)
            return true;
    if (w.tried.size() == kMost) w.tried.erase(w.tried.begin());
    w.tried.push_back(t);
    return false;
}

void run_wait(Warp& w, const Inst& i) {
    uint32_t passed = 0;
    const bool relaxed = i.extra & kRelaxed;
    Tried missing{};
    const auto try_all = [&](bool demands) {
        Tried former{};  // most often all lanes wait for the same
        bool passes = false;
        each_object(w, i, [&](int l, Place at) {
            const uint32_t parity =
                i.extra & kParity ? w.at<uint32_t>(i.b)[l] & 1 : MbarrierState::of(w.at<uint64_t>(i.b)[l]).parity;
            if (former.at.block != at.block || former.at.offset != at.offset || former.parity != parity) {
                if (at.block != w.block) fail(w, i, launch_failed, l, "waits for an mbarrier of another block");
                former = {&i, at, parity};
                passes = mbarrier_passed(w, i, l, at, parity, relaxed, demands);
            }
            if (passes)
                passed |= 1u << l;
            else
                missing = former;
        });
    };
    try_all(false);
    const bool lasts = passed != w.mask && again(w, missing);
    if (lasts) passed = 0, try_all(true);
    if (passed != w.mask) {
        w.wait = missing.at;
        if (!lasts || !(i.extra & kBlocks)) w.overdue = true;
        if (wait_here(w, i)) return;
    } else {
        w.turn = 0, w.wait = {};
        std::erase_if(w.tried, [&](const Tried& t) { return t.inst == &i; });
    }
    w.set_predicate(i.d, passed);
}

void wait(Builder& b, bool blocks) {
    uint32_t extra = blocks ? uint32_t{kBlocks} : 0u;
    if (b.take("parity")) extra |= kParity;
    take_order(b, extra);
    const Space space = take_barrier_space(b);
    if (space == Space::cluster || !b.take("b64")) b.unsupported("type or address space");
    b.done(), need_operands(b, 3, blocks ? 4 : 3);
    Inst at;
    b.address(at, b.operand(1));
    const Ref phase = b.source(b.operand(2), extra & kParity ? Type::u32 : Type::b64);
    if (b.operands() > 3) b.source(b.operand(3), Type::u32);  // how long to wait: as long as others can go on
    const Ref done = b.predicate_result(b.operand(0).name);
    Inst& i = finish(b, run_wait, space, at, extra);
    i.b = phase, i.d = done;
}

void pending_count(Builder& b) {
    if (!b.take("b64")) b.unsupported("type");
    b.done(), need_operands(b, 2, 2);
    const Ref state = b.source(b.operand(1), Type::b64), d = b.destination(b.operand(0), 4);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            const uint64_t* state = w.at<uint64_t>(i.a);
            each_lane<uint32_t>(w, i.d, [=](int l) { return MbarrierState::of(state[l]).pending; });
        },
        Class::barrier);
    i.a = state, i.d = d;
}

}  // namespace

void mbarrier(Builder& b) {
    if (b.take("init")) return init(b);
    if (b.take("inval")) return inval(b);
    if (b.take("arrive")) return arrive(b, false);
    if (b.take("arrive_drop")) return arrive(b, true);
    if (b.take("expect_tx")) return count_bytes(b, true);  // behind the arrivals, which may have it, too
    if (b.take("complete_tx")) return count_bytes(b, false);
    if (b.take("test_wait")) return wait(b, false);
    if (b.take("try_wait")) return wait(b, true);
    if (b.take("pending_count")) return pending_count(b);
    b.unsupported("operation on an mbarrier");
}

// An arrival when all earlier cp.async of the thread have landed.
void cp_async_mbarrier(Builder& b) {
    uint32_t extra = 0;
    if (!b.take("arrive")) b.unsupported("copy");
    if (b.take("noinc")) extra |= kNoinc;
    Inst at;
    const Space space = take_object(b, 1, at);
    if (space == Space::cluster) b.unsupported("address space");
    finish(
        b,
        [](Warp& w, const Inst& i) {
            Cluster& c = *w.block->cluster;
            Clocks::Knowledge knows;
            if (w.block->launch->options.check_shared) c.clocks.release(w.number, knows, false);
            each_object(w, i, [&](int l, Place at) {
                if (!(i.extra & kNoinc)) mbarrier_add_pending(w, i, l, at);
                Transfer t;
                t.kind = Transfer::arrival, t.inst = &i, t.warp = &w, t.lane = l;
                t.blocks = 1u << w.block->rank, t.barrier = at.offset;
                t.serial = w.copies_made, t.knows = knows;
                c.transfers.issue(std::move(t));
            });
        },
        space, at, extra);
}

}  // namespace emu::ops
