#include "warpgroup.h"

#include <algorithm>
#include <bit>

#include "cluster.h"

namespace emu {

namespace {

Warpgroup& group_of(const Warp& w) { return w.block->warpgroups[w.index / kWarpsInGroup]; }
uint32_t member_of(const Warp& w) { return w.index % kWarpsInGroup; }
Warpgroup::Member& self(const Warp& w) { return group_of(w).members[member_of(w)]; }

// Those of a call, by the place of its registers among those of the warp.
RegisterWatch::Slot* slots(const Warp& w, size_t place, const Code& c) {
    std::vector<RegisterWatch::Slot>& all = self(w).watch.slots;
    if (const size_t end = (place + c.register_bytes) / 64 + 1; end > all.size()) all.resize(end);
    return all.data() + place / 64;
}
RegisterWatch::Slot& slot(const Warp& w, Ref r) { return slots(w, w.frame->place, *w.code)[r / 64]; }

[[noreturn]] void refuse(const Warp& w, const Inst& i, const std::string& what) { fail(w, i, launch_failed, 0, what); }

// The product in flight that uses a register, for a message.
std::string culprit(const Warp& w) {
    const Warpgroup& g = group_of(w);
    const Warpgroup::Member& m = self(w);
    const bool committed = !m.groups.empty() && m.groups.back() > m.landed;
    return concat(committed ? "a wgmma.wait_group is missing" : "a wgmma.commit_group is missing",
                  "; in flight: ", place(w, g.queue[m.landed - g.first].inst));
}

void check_issue(const Warp& w, const Inst& i, const WgmmaRegisters& r) {
    RegisterWatch& watch = self(w).watch;
    if (!watch.fenced) refuse(w, i, "no wgmma.fence comes before the first wgmma of the warp");
    for (uint32_t k = 0; k < r.accumulator_count + r.a_count; ++k) {
        const bool accumulates = k < r.accumulator_count;
        const Ref ref = accumulates ? r.accumulators[k] : r.a[k - r.accumulator_count];
        if ((ref & 3) != in_registers) continue;
        RegisterWatch::Slot& s = slot(w, ref);
        const char* what = accumulates ? "an accumulator" : "a register of A";
        if (s.touched == watch.fences)
            refuse(w, i,
                   concat(what, " was used by another instruction since the last wgmma.fence (a fence is missing)"));
        if (s.writers != 0 && !accumulates)
            refuse(w, i, concat("reads A from registers that a wgmma in flight writes: ", culprit(w)));
        if (s.writers != 0 && s.form != r.form)
            refuse(w, i, concat("accumulates where a wgmma of another shape is in flight: ", culprit(w)));
        if (s.readers != 0 && accumulates)
            refuse(w, i, concat("accumulates in registers that a wgmma in flight reads A from: ", culprit(w)));
    }
    for (uint32_t k = 0; k < r.accumulator_count; ++k) {
        RegisterWatch::Slot& s = slot(w, r.accumulators[k]);
        ++s.writers, s.form = r.form;
    }
    for (uint32_t k = 0; k < r.a_count; ++k)
        if ((r.a[k] & 3) == in_registers) ++slot(w, r.a[k]).readers;
}

void release(const Warp& w, const Wgmma& op, const WgmmaRegisters& r) {
    RegisterWatch::Slot* all = slots(w, w.frames.place(op.registers[member_of(w)]), *op.code);
    for (uint32_t k = 0; k < r.accumulator_count; ++k) --all[r.accumulators[k] / 64].writers;
    for (uint32_t k = 0; k < r.a_count; ++k)
        if ((r.a[k] & 3) == in_registers) --all[r.a[k] / 64].readers;
}

bool watches(const Warp& w) { return w.block->launch->options.check_shared; }

}  // namespace

void begin_warpgroups(Block& b) {
    b.warpgroups.resize((b.warps.size() + kWarpsInGroup - 1) / kWarpsInGroup);
    for (Warpgroup& g : b.warpgroups) {
        g.queue.clear(), g.first = 0;
        for (Warpgroup::Member& m : g.members) {
            m.issued = m.landed = 0, m.groups.clear();
            std::vector<RegisterWatch::Slot> slots = std::move(m.watch.slots);  // the memory is kept
            slots.assign(slots.size(), {});
            m.watch = {}, m.watch.slots = std::move(slots);
        }
    }
}

void issue(Warp& w, const Inst& i, uint64_t a, uint64_t b, bool adds, const WgmmaRegisters& r) {
    Warpgroup& g = group_of(w);
    Warpgroup::Member& m = self(w);
    const uint32_t bit = 1u << member_of(w);
    if ((w.index | 3) >= w.block->warps.size() || w.alive != kAll)
        refuse(w, i, "wgmma needs the four warps of a warpgroup, complete (the block ends within it)");
    if (watches(w)) check_issue(w, i, r);
    const uint64_t number = m.issued++;
    ++m.watch.in_flight;
    if (number - g.first >= g.queue.size()) {
        Wgmma& op = g.queue.emplace_back();
        op.inst = &i, op.code = w.code, op.a = a, op.b = b, op.adds = adds;
    }
    Wgmma& op = g.queue[number - g.first];
    if (op.inst != &i)
        refuse(w, i,
               concat("the warps of a warpgroup execute different wgmma (divergence): another one executed ",
                      place(w, op.inst)));
    if (op.a != a || op.b != b || op.adds != adds)
        refuse(w, i, "the warps of a warpgroup execute wgmma with different descriptors or scale-d");
    const bool first = op.joined == 0;
    op.joined |= bit;
    op.registers[member_of(w)] = w.base[in_registers];
    if (watches(w)) w.block->cluster->clocks.issue(w.number, op.known, first);
    if (op.joined != 15) return;
    for (uint32_t k = 0; k < kWarpsInGroup; ++k) {
        Warp& o = w.block->warps[(w.index & ~3u) + k];
        if (o.state == State::at_wgmma) o.state = State::ready;
    }
}

void fence_registers(Warp& w) {
    RegisterWatch& watch = self(w).watch;
    ++watch.fences, watch.fenced = true;
}

void commit(Warp& w) {
    Warpgroup::Member& m = self(w);
    m.groups.push_back(m.issued);
}

void wait(Warp& w, const Inst& i, uint32_t pending, Land land, WgmmaRegisters (*registers)(const Wgmma&)) {
    Warpgroup& g = group_of(w);
    Warpgroup::Member& m = self(w);
    if (m.groups.size() <= pending) return;
    const size_t over = m.groups.size() - pending;
    const uint64_t until = m.groups[over - 1];
    for (; m.landed < until; ++m.landed) {
        Wgmma& op = g.queue[m.landed - g.first];
        if (op.joined != 15) {  // comes back here when the others have issued it
            w.pc = &i, w.state = State::at_wgmma, w.stop = true;
            --w.block->counters.instructions[static_cast<int>(i.klass)];
            return;
        }
        land(w, op);
        if (watches(w)) release(w, op, registers(op));
        --m.watch.in_flight;
    }
    m.groups.erase(m.groups.begin(), m.groups.begin() + static_cast<std::ptrdiff_t>(over));
    while (!g.queue.empty() &&
           std::ranges::all_of(g.members, [&](const Warpgroup::Member& o) { return o.landed > g.first; }))
        g.queue.pop_front(), ++g.first;
}

void check_left_over(const Warp& w) {
    for (const Warp& o : w.block->warps)
        if (o.index / kWarpsInGroup == w.index / kWarpsInGroup && o.quotas.size() > w.quotas.size())
            refuse(w, *(w.pc - 1),
                   concat("leaves without a setmaxnreg that warp ", o.index, " of its warpgroup executed"));
    if (w.block->warpgroups.empty()) return;
    const Warpgroup& g = group_of(w);
    const Warpgroup::Member& m = self(w);
    if (m.issued == m.landed || !watches(w)) return;
    refuse(w, *g.queue[m.landed - g.first].inst, concat("the warp leaves with this wgmma in flight: ", culprit(w)));
}

std::string awaited(const Warp& w) {
    if (w.state == State::at_registers) return "for registers that no other warpgroup gives back (setmaxnreg)";
    const Warpgroup& g = group_of(w);
    const Wgmma& op = g.queue[self(w).landed - g.first];
    std::string missing;
    for (uint32_t k = 0; k < kWarpsInGroup; ++k)
        if (!(op.joined >> k & 1)) missing += concat(missing.empty() ? "" : ", ", (w.index & ~3u) + k);
    return concat("for a wgmma that warps ", missing, " of its warpgroup did not execute (divergence)");
}

void watch_registers(Warp& w, const Inst& i) {
    const Code& c = *w.code;
    if (c.touch_at.empty()) return;
    const auto n = static_cast<size_t>(&i - c.insts.data());
    RegisterWatch& watch = self(w).watch;
    RegisterWatch::Slot* all = slots(w, w.frame->place, c);
    for (uint32_t k = c.touch_at[n]; k < c.touch_at[n + 1]; ++k) {
        const Ref r = c.touches[k];
        RegisterWatch::Slot& s = all[r / 64];
        if (watch.in_flight != 0) {
            if (s.writers != 0)
                refuse(w, i, concat(r & 1 ? "writes" : "reads", " an accumulator of a wgmma in flight: ", culprit(w)));
            if (s.readers != 0 && (r & 1))
                refuse(w, i, concat("writes a register that a wgmma in flight reads A from: ", culprit(w)));
        }
        s.touched = watch.fences;
    }
}

}  // namespace emu
