// How accesses and fences order what other threads see. All is executed in order here; the checkers alone care.
#include "../exec/cluster.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

uint16_t take_strength(Builder& b) {
    uint16_t flags = 0;
    if (b.take("volatile") || b.take("relaxed")) flags |= kStrongAccess;
    if (b.take("mmio") && !flags) b.unsupported("mmio without relaxed");
    if (b.take("acquire")) flags |= kStrongAccess | kAcquires;
    if (b.take("release")) flags |= kStrongAccess | kReleases;
    if (b.take("acq_rel")) flags |= kStrongAccess | kAcquires | kReleases;
    if (b.take_any({"cta", "cluster", "gpu", "sys"}) == "cta") flags |= kBlockScope;
    return flags;
}

void fence(Builder& b) {
    if (b.take("mbarrier_init")) {
        b.take("release"), b.take("cluster");
        b.done();
        b.emit(
            [](Warp& w, const Inst&) {
                Block& own = *w.block;
                if (!own.launch->options.check_shared) return;
                own.cluster->clocks.fence(w.number);
                for (auto& [offset, m] : own.mbarriers)
                    if ((m.made & Clocks::kIndexMask) == w.number) m.published = true;
            },
            Class::control);
        return;
    }
    if (b.take("proxy")) {
        if (b.take("async::generic"))
            b.take_any({"acquire", "release"}), b.take("cluster"), b.take_prefix("sync_restrict");
        else if (!b.take("async") || b.take("global"))
            return nothing(b);
        b.take_any({"shared::cta", "shared::cluster"});
        b.done();
        b.emit(
            [](Warp& w, const Inst&) {
                if (w.block->launch->options.check_shared) w.block->cluster->clocks.proxy_fence(w.number);
            },
            Class::control);
        return;
    }
    b.take_any({"sc", "acq_rel", "acquire", "release"});
    b.take_prefix("sync_restrict");
    const bool device = b.take_any({"cta", "cluster", "gpu", "gl", "sys"}) != "cta";
    b.done();
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            Cluster& c = *w.block->cluster;
            if (!c.launch->options.check_shared) return;
            c.clocks.fence(w.number);
            if (i.extra != 0) c.order.fence(w.number);
        },
        Class::control);
    i.extra = device;
}

}  // namespace emu::ops
