// The checkers of global memory on a warp's accesses, and the order that atomics and fences make.
#include <cstring>

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
        const uint64_t b = block_of(f.other);
        whose = concat(", other access by block (", b % l.grid[0], ", ", b / l.grid[0] % l.grid[1], ", ",
                       b / l.grid[0] / l.grid[1], "), warp ", warp_of(f.other));
    }
    fail(w, i, launch_failed, lane, concat(f.what, ", at address ", std::hex, "0x", f.address, whose));
}

}  // namespace

void touch_global(Warp& w, const Inst& i, const uint64_t* address, const uint32_t* bytes, bool store, Values values) {
    Block& b = *w.block;
    GlobalShadow& shadow = b.launch->global;
    const GlobalStamp strong = strength(i);
    const Touch what = kind(i, store);
    if (store && strong != 0)
        for_lanes(w.mask, [&](int l) {
            if (i.flags & kReleases) b.order.fence(w.index);
            b.order.release(w.index, address[l]);
        });
    // neighbours go together
    bool wrong = false;
    uint64_t begin = 0, end = 0;
    for_lanes(w.mask, [&](int l) {
        if (address[l] == end) {
            end += bytes[l];
            return;
        }
        wrong = wrong || shadow.touch(b.order, w.index, begin, end - begin, what, strong).what != nullptr;
        begin = address[l], end = begin + bytes[l];
    });
    wrong = wrong || shadow.touch(b.order, w.index, begin, end - begin, what, strong).what != nullptr;
    if (!wrong) return;
    for_lanes(w.mask, [&](int l) {
        const Finding f = shadow.touch(b.order, w.index, address[l], bytes[l], what, strong);
        if (f.what == nullptr) return;
        const bool same = f.both_wrote && values != nullptr &&
                          std::memcmp(reinterpret_cast<const char*>(address[l]), values[l], bytes[l]) == 0;
        if (!same) report(w, i, l, f);
    });
}

void acquire_global(Warp& w, const Inst& i, const Pointers& from) {
    if (!(i.flags & kStrongAccess) || !w.block->launch->options.check_global) return;
    for_lanes(w.mask, [&](int l) {
        w.block->order.acquire(w.index, reinterpret_cast<uint64_t>(from.at[l]), i.flags & kAcquires);
    });
}

}  // namespace emu
