// setmaxnreg: registers that warpgroups hand over to one another, out of what a block has when it is alone on its
// multiprocessor.
#include "../exec/block.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

// Registers of one thread that the kernel can begin with at most; how many it does is decided by ptxas.
uint32_t first_quota(const Block& b) {
    const auto threads = static_cast<uint32_t>(b.warps.size()) * kLanes;
    return std::min(256u, 65536 / threads / 8 * 8);
}

uint32_t quota(const Block& b, const Warp& w) { return w.quotas.empty() ? first_quota(b) : w.quotas.back(); }

void change(Warp& w, const Inst& i) {
    if (!together(w, i, kAll)) return;
    Block& b = *w.block;
    const bool grows = i.flags != 0;
    const auto wanted = static_cast<uint32_t>(i.imm), now = quota(b, w);
    if (b.warps.size() % kWarpsInGroup != 0)
        fail(w, i, launch_failed, 0, "setmaxnreg needs whole warpgroups, and the block ends within one");
    if (grows ? wanted < now && !w.quotas.empty() : wanted > now)  // what it began with is not told
        fail(w, i, launch_failed, 0,
             concat(grows ? "setmaxnreg.inc to " : "setmaxnreg.dec to ", wanted, " of a warp that has ", now,
                    " registers"));
    const uint32_t first = w.index & ~(kWarpsInGroup - 1);
    for (uint32_t k = first; k < first + kWarpsInGroup; ++k) {
        const Warp& o = b.warps[k];
        if (o.state == State::done && o.quotas.size() <= w.quotas.size())
            fail(w, i, launch_failed, 0, concat("warp ", k, " of the warpgroup left without this setmaxnreg"));
        if (o.quotas.size() > w.quotas.size() && o.quotas[w.quotas.size()] != wanted)
            fail(w, i, launch_failed, 0,
                 concat("the warps of a warpgroup set different numbers of registers: warp ", k, " set ",
                        o.quotas[w.quotas.size()]));
    }
    uint32_t taken = wanted - now;
    for (const Warp& o : b.warps) taken += quota(b, o);
    if (taken > first_quota(b) * b.warps.size()) {  // until others have given some back
        w.pc = &i, w.state = State::at_registers, w.stop = true;
        --b.counters.instructions[static_cast<int>(i.klass)];
        return;
    }
    w.quotas.push_back(static_cast<uint16_t>(wanted));
    for (Warp& o : b.warps)
        if (o.state == State::at_registers) o.state = State::ready;
}

}  // namespace

void setmaxnreg(Builder& b) {
    const bool grows = b.take("inc");
    if (!grows && !b.take("dec")) b.unsupported("setmaxnreg without .inc or .dec");
    if (!b.take("sync") || !b.take("aligned") || !b.take("u32")) b.unsupported("setmaxnreg without .sync.aligned.u32");
    b.done();
    const Operand& o = b.operand(0);
    if (o.kind != Operand::integer || o.bits % 8 != 0 || o.bits < 24 || o.bits > 256)
        b.unsupported("a number of registers that is no multiple of 8 from 24 to 256");
    const auto count = static_cast<int64_t>(o.bits);
    Inst& i = b.emit(change, Class::control);
    i.imm = count, i.flags = grows;
}

}  // namespace emu::ops
