// Divergence: lanes of a warp that took different ways form groups. The group that stands deepest in calls, and among
// those earliest in the code, runs first, so that the others join it where their ways meet.
#include <algorithm>

#include "../memory/spaces.h"
#include "../ops/lanes.h"
#include "cluster.h"

namespace emu {

namespace {

bool goes_before(const Group& a, const Group& b) {
    if (a.waits != b.waits) return b.waits;
    if (a.turn != b.turn) return a.turn < b.turn;
    if (a.frame->depth != b.frame->depth) return a.frame->depth > b.frame->depth;
    if (a.frame->code != b.frame->code) return a.frame->code->number < b.frame->code->number;
    return a.pc < b.pc;
}

bool same_place(const Group& a, const Group& b) { return a.pc == b.pc && a.frame == b.frame; }

void set_aside(Warp& w, const Inst* pc, uint32_t lanes, bool waits) {
    w.others.push_back({pc, lanes, waits, w.turn, w.wait, w.frame});
}

[[noreturn]] void stuck(Warp& w, const Group& g) {
    w.frame = g.frame;
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
    const Frame& f = *w.frame;
    w.code = f.code;
    w.base[in_registers] = f.registers.data();
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
    w.frame = std::move(g.frame);
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

// Lanes of the group that an instruction leaves where they are go on behind it.
static void part(Warp& w, const Inst* behind) {
    if (w.mask == w.active) return;
    set_aside(w, behind, w.active & ~w.mask, false);
    w.active = w.mask;
}

static void pass(uint32_t lanes, const uint32_t* from, uint32_t* to) {
    if (lanes == kAll)
        std::memcpy(to, from, kLanes * sizeof *to);
    else
        for_lanes(lanes, [&](int l) { to[l] = from[l]; });
}

// The frame for some lanes, with their arguments in it.
static Hold called(Warp& w, const Inst& i, const Call& call, const Code& callee, uint32_t lanes) {
    Hold to = w.frames.enter(callee, &*w.frame, &call, w.pc);
    if (callee.recursive && --w.budget < 0) w.stop = true;  // it may take as long as a loop
    if (callee.recursive && to->stack + callee.stack_bytes > kStackBytes)
        fail(w, i, launch_failed, std::countr_zero(lanes),
             concat("stack overflow: ", callee.name, " is called ", to->depth, " deep, and its registers and local ",
                    "variables no longer fit into ", kStackBytes, " bytes"));
    for (size_t k = 0; k < call.in.size(); ++k) pass(lanes, w.at<uint32_t>(call.in[k]), to->word(callee.parameters[k]));
    for (const LocalAddress& a : callee.locals)
        for_lanes(lanes, [&](int l) {
            const uint64_t address = w.block->launch->program->local_bytes + to->stack + a.offset;
            std::memcpy(to->registers.data() + a.slot + static_cast<uint32_t>(l) * a.bytes, &address, a.bytes);
        });
    return to;
}

void enter(Warp& w, const Inst& i, const Call& call) {
    part(w, w.pc);
    w.frame = called(w, i, call, *call.callee, w.mask);
    set_frame(w);
    w.pc = call.callee->insts.data();
}

void enter_by_address(Warp& w, const Inst& i, const Call& call, const uint64_t* address) {
    part(w, w.pc);
    const std::vector<const Code*>& functions = w.block->launch->program->by_address;
    for (uint32_t left = w.mask; left != 0;) {
        const int first = std::countr_zero(left);
        const uint64_t at = address[first], number = (at - kCodeWindow) / kCodeStep;
        const auto complain = [&](const std::string& why) {
            fail(w, i, illegal_address, first, concat("calls address 0x", std::hex, at, std::dec, why));
        };
        if (at % kCodeStep != 0 || number >= functions.size() || functions[number]->source->entry)
            complain(", where no function is");
        const Code& callee = *functions[number];
        if (call.in.size() != callee.parameters.size() || call.out.size() != callee.results.size())
            complain(concat(", ", callee.name, ", whose parameters are not those of the call's prototype"));
        uint32_t same = 0;
        for_lanes(left, [&](int l) { same |= address[l] == at ? 1u << l : 0; });
        w.others.push_back({callee.insts.data(), same, false, w.turn, w.wait, called(w, i, call, callee, same)});
        left &= ~same;
    }
    pick_group(w);
}

void leave(Warp& w) {
    if (w.frame->caller == nullptr) return exit_lanes(w, w.mask);
    part(w, w.pc);
    const Hold from = std::exchange(w.frame, Hold(w.frame->caller));
    set_frame(w);
    for (size_t k = 0; k < from->call->out.size(); ++k)
        pass(w.mask, from->word(from->code->results[k]), w.at<uint32_t>(from->call->out[k]));
    w.pc = from->back;
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
