// The checkers of global memory on a warp's accesses, and the order that atomics and fences make.
#include <cstring>

#include "../exec/cluster.h"
#include "../ops/lanes.h"
#include "access.h"

namespace emu {

namespace {

GlobalStamp strength(const Inst& i) {
    if (!(i.flags & kStrongAccess)) return 0;
    return i.flags & kBlockScope ? kStrong : kStrong | kDeviceWide;
}

Touch kind(const Inst& i, bool store) { return i.flags & kAtomic ? Touch::update : store ? Touch::write : Touch::read; }

[[noreturn]] void report(Warp& w, const Inst& i, int lane, const Finding& f) {
    std::string whose;
    if (f.other != 0) {
        const Launch& l = *w.block->launch;
        const auto warps = static_cast<uint32_t>(w.block->warps.size());
        uint32_t b[3];
        l.locate(cluster_of(f.other), warp_of(f.other) / warps, b);
        whose = concat(", other access by block (", b[0], ", ", b[1], ", ", b[2], "), warp ", warp_of(f.other) % warps);
    }
    fail(w, i, launch_failed, lane, concat(f.what, ", at address ", std::hex, "0x", f.address, whose));
}

}  // namespace

void touch_global(Warp& w, const Inst& i, const uint64_t* address, const uint32_t* bytes, bool store, Values values) {
    Block& b = *w.block;
    GlobalShadow& shadow = b.launch->global;
    GlobalOrder& order = b.cluster->order;
    const GlobalStamp strong = strength(i);
    const Touch what = kind(i, store);
    if (store && strong != 0 && b.launch->options.check_shared)
        for_lanes(w.mask, [&](int l) {
            if (i.flags & kReleases) order.fence(w.number);
            order.release(w.number, address[l]);
        });
    // neighbours go together
    bool wrong = false;
    uint64_t begin = 0, end = 0;
    for_lanes(w.mask, [&](int l) {
        if (address[l] == end) {
            end += bytes[l];
            return;
        }
        wrong = wrong || shadow.touch(order, w.number, begin, end - begin, what, strong).what != nullptr;
        begin = address[l], end = begin + bytes[l];
    });
    wrong = wrong || shadow.touch(order, w.number, begin, end - begin, what, strong).what != nullptr;
    if (!wrong) return;
    for_lanes(w.mask, [&](int l) {
        const Finding f = shadow.touch(order, w.number, address[l], bytes[l], what, strong);
        if (f.what == nullptr) return;
        const bool same = f.both_wrote && values != nullptr &&
                          std::memcmp(reinterpret_cast<const char*>(address[l]), values[l], bytes[l]) == 0;
        if (!same) report(w, i, l, f);
    });
}

void touch_global(Warp& w, const Inst& i, int lane, uint64_t address, uint64_t bytes, Touch kind) {
    Launch& l = *w.block->launch;
    if (!l.options.check_global) return;
    const GlobalStamp strong = kind == Touch::update ? kStrong | kDeviceWide : 0;
    const Finding f = l.global.touch(w.block->cluster->order, w.number, address, bytes, kind, strong);
    if (f.what != nullptr) report(w, i, lane, f);
}

void acquire_global(Warp& w, const Inst& i, const Pointers& from) {
    const Options& o = w.block->launch->options;
    if (!(i.flags & kStrongAccess) || !o.check_global || !o.check_shared) return;
    for_lanes(w.mask, [&](int l) {
        w.block->cluster->order.acquire(w.number, reinterpret_cast<uint64_t>(from.at[l]), i.flags & kAcquires);
    });
}

}  // namespace emu
