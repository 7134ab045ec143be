// How accesses and fences order what other threads see. All is executed in order here; the checkers alone care.
#include "families.h"
#include "lanes.h"

#include "../exec/block.h"

namespace emu::ops {

uint16_t take_strength(Builder& b) {
    uint16_t flags = 0;
    if (b.take("volatile") || b.take("mmio") || b.take("relaxed")) flags |= kStrongAccess;
    if (b.take("acquire")) flags |= kStrongAccess | kAcquires;
    if (b.take("release")) flags |= kStrongAccess | kReleases;
    if (b.take("acq_rel")) flags |= kStrongAccess | kAcquires | kReleases;
    if (b.take_any({"cta", "cluster", "gpu", "sys"}) == "cta") flags |= kBlockScope;
    return flags;
}

void memory_fence(Builder& b) {
    if (b.take("proxy") || b.take_any({"gl", "cluster", "gpu", "sys"}).empty()) return nothing(b);
    b.emit([](Warp& w, const Inst&) { w.block->order.fence(w.index); }, Class::control);
}

}  // namespace emu::ops
