// Divergence: lanes of a warp that took different ways form groups. The group that stands deepest in calls, and among
// those earliest in the code, runs first, so that the others join it where their ways meet.
#include <algorithm>

#include "cluster.h"

namespace emu {

namespace {

bool goes_before(const Group& a, const Group& b) {
    if (a.waits != b.waits) return b.waits;
    if (a.turn != b.turn) return a.turn < b.turn;
    if (a.frames.size() != b.frames.size()) return a.frames.size() > b.frames.size();
    return a.pc < b.pc;
}

bool same_place(const Group& a, const Group& b) {
    if (a.pc != b.pc || a.frames.size() != b.frames.size()) return false;
    for (size_t k = 0; k < a.frames.size(); ++k)
        if (a.frames[k].back != b.frames[k].back) return false;
    return true;
}

void set_aside(Warp& w, const Inst* pc, uint32_t lanes, bool waits) {
    w.others.push_back({pc, lanes, waits, w.turn, w.wait, w.frames});
}

[[noreturn]] void stuck(Warp& w, const Group& g) {
    w.frames = g.frames;
    const uint32_t elsewhere = w.alive & ~g.lanes;
    std::string where;
    for (const Group& o : w.others)
        if (&o != &g) where += concat("; lanes ", std::hex, "0x", o.lanes, std::dec, " stand at ", place(w, o.pc));
    fail(w, *g.pc, launch_failed, std::countr_zero(g.lanes),
         concat("an instruction of the whole warp is executed by lanes ", std::hex, "0x", g.lanes, " without 0x",
                elsewhere, std::dec, " (divergence)", where));
}

}  // namespace

void set_frame(Warp& w) {
    const Frame& f = w.frames.back();
    w.code = f.code;
    w.base[in_registers] = f.registers;
    w.base[in_constants] = const_cast<char*>(f.code->constants.data());
}

void pick_group(Warp& w) {
    if (w.others.empty()) {
        w.active = 0;
        w.state = State::done, w.stop = true;
        return;
    }
    auto first = std::min_element(w.others.begin(), w.others.end(), goes_before);
    Group g = std::move(*first);
    bool grew = !g.waits;
    w.others.erase(first);
    for (size_t k = 0; k < w.others.size();) {
        if (same_place(g, w.others[k])) {
            g.lanes |= w.others[k].lanes;
            w.others.erase(w.others.begin() + static_cast<std::ptrdiff_t>(k));
            grew = true;
        } else {
            ++k;
        }
    }
    if (!grew) {
        w.others.push_back(std::move(g));
        // lanes that exited may have been what it waited for
        for (Group& o : w.others)
            if (o.lanes == w.alive) {
                g = std::move(o);
                w.others.clear();
                grew = true;
                break;
            }
        if (!grew) stuck(w, w.others.back());
    }
    w.active = g.lanes, w.turn = g.turn, w.wait = g.wait;
    w.frames = std::move(g.frames);
    set_frame(w);
    w.pc = g.pc->run == kJoin ? g.pc + 1 : g.pc;
}

bool together(Warp& w, const Inst& i, uint32_t members) {
    if (const uint32_t off = members & w.active & ~w.mask; off != 0)
        fail(w, i, launch_failed, std::countr_zero(off), "its guard keeps this lane from an instruction that needs it");
    if ((members & w.alive & ~w.active) == 0) return true;
    set_aside(w, &i, w.active, true);
    pick_group(w);
    return false;
}

void jump(Warp& w, const Inst* to) {
    if (to < w.pc && --w.budget < 0) w.stop = true;
    w.pc = to;
}

void branch(Warp& w, const Inst* to, uint32_t taken) {
    if (taken == w.active) return jump(w, to);
    if (to < w.pc && --w.budget < 0) w.stop = true;
    set_aside(w, w.pc, w.active & ~taken, false);
    set_aside(w, to, taken, false);
    pick_group(w);
}

void exit_lanes(Warp& w, uint32_t lanes) {
    w.alive &= ~lanes;
    w.active &= ~lanes;
    if (w.active == 0) pick_group(w);
    w.block->cluster->threads_left();
}

bool wait_here(Warp& w, const Inst& i) {
    w.stop = true, w.waits_at = &i;
    w.turn = ++w.turns;
    if (w.overdue) return w.overdue = false;
    --w.block->counters.instructions[static_cast<int>(i.klass)];  // it counts once, when it goes on
    w.pc = &i;
    return true;
}

void rotate_groups(Warp& w) {
    set_aside(w, w.pc, w.active, false);
    pick_group(w);
}

void enter(Warp& w, const Call& call, const Inst* back) {
    const Frame& from = w.frames.back();
    Frame to;
    to.code = call.callee;
    to.registers = from.registers + from.code->register_bytes;
    to.back = back, to.call = &call;
    for (const auto& [a, b] : call.in) {
        const uint32_t* source = w.at<uint32_t>(a);
        auto* target = reinterpret_cast<uint32_t*>(to.registers + (b & ~3u));
        for (int l = 0; l < kLanes; ++l)
            if (w.mask >> l & 1) target[l] = source[l];
    }
    if (w.mask != w.active) {
        set_aside(w, back, w.active & ~w.mask, false);
        w.active = w.mask;
    }
    w.frames.push_back(to);
    set_frame(w);
    w.pc = call.callee->insts.data();
}

void leave(Warp& w) {
    if (w.frames.size() == 1) return exit_lanes(w, w.mask);
    if (w.mask != w.active) {
        set_aside(w, w.pc, w.active & ~w.mask, false);
        w.active = w.mask;
    }
    const Frame from = w.frames.back();
    w.frames.pop_back();
    set_frame(w);
    for (const auto& [a, b] : from.call->out) {
        const auto* source = reinterpret_cast<const uint32_t*>(from.registers + (b & ~3u));
        uint32_t* target = w.at<uint32_t>(a);
        for (int l = 0; l < kLanes; ++l)
            if (w.mask >> l & 1) target[l] = source[l];
    }
    w.pc = from.back;
    // lanes still in the function go first
    if (!w.others.empty()) {
        set_aside(w, w.pc, w.active, false);
        pick_group(w);
    }
}

const Run kJoin = [](Warp& w, const Inst& i) {
    if (w.others.empty()) return;
    set_aside(w, &i, w.active, false);
    pick_group(w);
};

}  // namespace emu
