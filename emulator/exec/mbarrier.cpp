#include "mbarrier.h"

#include <cstring>

#include "cluster.h"

namespace emu {

namespace {

uint64_t load(Place at) {
    uint64_t word;
    std::memcpy(&word, at.block->shared.data() + at.offset, 8);
    return word;
}

void store(Place at, const MbarrierState& s) {
    const uint64_t word = s.word();
    std::memcpy(at.block->shared.data() + at.offset, &word, 8);
    ++at.block->cluster->events;
}

std::string named(Place at) { return concat("the mbarrier at shared address 0x", std::hex, at.offset, std::dec); }

[[noreturn]] void wrong(Warp& w, const Inst& i, int lane, Place at, const std::string& what) {
    fail(w, i, launch_failed, lane, concat(named(at), " of block rank ", at.block->rank, ' ', what));
}

bool checked(Place at) { return at.block->launch->options.check_shared; }

// The object, after checks that hold for every instruction but init.
MbarrierState use(Warp& w, const Inst& i, int lane, Place at) {
    const uint64_t word = load(at);
    if (!MbarrierState::valid(word)) wrong(w, i, lane, at, "was never initialized (or is invalid again)");
    if (checked(at)) {
        const auto it = at.block->mbarriers.find(at.offset);
        if (it == at.block->mbarriers.end()) wrong(w, i, lane, at, "was never initialized");
        if (!w.block->cluster->clocks.ordered(it->second.made, w.number))
            wrong(w, i, lane, at, "was initialized by another warp with no barrier between (a race)");
    }
    return MbarrierState::of(word);
}

Mbarrier& known(Place at) { return at.block->mbarriers[at.offset]; }

void settle(Place at, MbarrierState s) {
    if (s.pending == 0 && s.tx == 0) {
        s.pending = s.expected, s.parity ^= 1;
        if (checked(at)) known(at).passed.join(known(at).arrived);
    }
    store(at, s);
}

void add_bytes(Warp& w, const Inst& i, int lane, Place at, MbarrierState& s, int64_t bytes) {
    const int64_t sum = s.tx + bytes;
    if (sum > MbarrierState::kMost || sum < -int64_t{MbarrierState::kMost})
        wrong(w, i, lane, at, concat("can't count ", sum, " bytes (its tx-count overflows)"));
    s.tx = static_cast<int32_t>(sum);
}

}  // namespace

void mbarrier_init(Warp& w, const Inst& i, int lane, Place at, uint32_t count) {
    if (count == 0 || count > MbarrierState::kMost) wrong(w, i, lane, at, concat("can't expect ", count, " arrivals"));
    if (checked(at)) {
        if (at.block->mbarriers.contains(at.offset)) wrong(w, i, lane, at, "is initialized while it is in use");
        Clocks& clocks = w.block->cluster->clocks;
        if (const char* what = at.block->shadow.write(w.number, at.offset, 8))
            wrong(w, i, lane, at, concat("is initialized: ", what));
        Mbarrier& m = known(at);
        m.made = clocks.stamp(w.number), m.agent = clocks.new_agent();
        at.block->shadow.set_object(at.offset, true);
    }
    MbarrierState s;
    s.pending = s.expected = count;
    store(at, s);
}

void mbarrier_inval(Warp& w, const Inst& i, int lane, Place at) {
    use(w, i, lane, at);
    w.block->cluster->transfers.refuse_signals(w, i, lane, at);
    if (checked(at)) {
        at.block->mbarriers.erase(at.offset);
        at.block->shadow.set_object(at.offset, false);
    }
    const uint64_t none = ~uint64_t{0};
    std::memcpy(at.block->shared.data() + at.offset, &none, 8);
}

uint64_t mbarrier_arrive(Warp& w, const Inst& i, int lane, Place at, uint32_t count, bool drop, bool completes,
                         bool relaxed, const Clocks::Knowledge* from) {
    MbarrierState s = use(w, i, lane, at);
    const uint64_t before = s.word();
    if (count == 0 || count > s.pending)
        wrong(w, i, lane, at,
              concat("gets ", count, " arrivals, where ", s.pending, " of ", s.expected,
                     " are pending (more threads arrive than it expects)"));
    s.pending -= count;
    if (drop) s.expected -= std::min(count, s.expected);
    if (!completes && s.pending == 0 && s.tx == 0) wrong(w, i, lane, at, "is completed by an arrival with .noComplete");
    if (checked(at)) {
        if (from != nullptr)
            known(at).arrived.join(*from);
        else
            w.block->cluster->clocks.release(w.number, known(at).arrived, relaxed);
    }
    settle(at, s);
    return before;
}

void mbarrier_add_pending(Warp& w, const Inst& i, int lane, Place at) {
    MbarrierState s = use(w, i, lane, at);
    if (s.pending == MbarrierState::kMost) wrong(w, i, lane, at, "has too many pending arrivals");
    ++s.pending;
    store(at, s);
}

void mbarrier_expect(Warp& w, const Inst& i, int lane, Place at, int64_t bytes) {
    MbarrierState s = use(w, i, lane, at);
    add_bytes(w, i, lane, at, s, bytes);
    bytes > 0 ? store(at, s) : settle(at, s);
}

bool mbarrier_passed(Warp& w, const Inst& i, int lane, Place at, uint32_t parity, bool relaxed, bool demands) {
    if (use(w, i, lane, at).parity == parity && !(demands && w.block->cluster->transfers.demand(at))) return false;
    if (checked(at)) w.block->cluster->clocks.acquire(w.number, known(at).passed, relaxed);
    return true;
}

void mbarrier_check_signal(Warp& w, const Inst& i, int lane, Place at) {
    use(w, i, lane, at);
    Cluster& c = *w.block->cluster;
    if (!checked(at) || c.blocks.size() == 1) return;
    if (const Mbarrier& m = known(at); !m.published && !c.clocks.fenced(m.made, w.number))
        wrong(w, i, lane, at,
              "is to be signalled by the asynchronous proxy, which may not see it (fence.mbarrier_init is missing)");
}

Stamp mbarrier_landed(Warp& w, const Inst& i, int lane, Place at, uint32_t bytes) {
    if (!MbarrierState::valid(load(at))) wrong(w, i, lane, at, "is invalid when a copy completes at it");
    MbarrierState s = MbarrierState::of(load(at));
    Stamp stamp = 0;
    if (checked(at)) {
        Mbarrier& m = known(at);
        stamp = w.block->cluster->clocks.advance(m.agent, m.arrived);
    }
    add_bytes(w, i, lane, at, s, -int64_t{bytes});
    settle(at, s);
    return stamp;
}

MbarrierState mbarrier_state(Place at) { return MbarrierState::of(load(at)); }

}  // namespace emu
