#include "access.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "../exec/cluster.h"
#include "../ops/lanes.h"
#include "heap.h"
#include "spaces.h"

namespace emu {

namespace {

const char* verb(bool store) { return store ? "writes" : "reads"; }

void check_alignment(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], uint32_t bytes) {
    uint64_t low = 0;
    for_lanes(w.mask, [&](int l) { low |= address[l]; });
    if ((low & (bytes - 1)) == 0) return;
    for_lanes(w.mask, [&](int l) {
        if (address[l] & (bytes - 1))
            fail(w, i, misaligned_address, l,
                 concat(verb(i.flags & kStore), " ", bytes, " bytes at address ", std::hex, "0x", address[l], std::dec,
                        ", which is no multiple of ", bytes, " (misaligned)"));
    });
}

[[noreturn]] void out_of_bounds(Warp& w, const Inst& i, int l, const char* space, uint64_t address, uint32_t bytes,
                                const std::string& why) {
    fail(w, i, illegal_address, l,
         concat(verb(i.flags & kStore), " ", bytes, " bytes of ", space, " memory at address ", std::hex, "0x", address,
                std::dec, ", out of bounds: ", why));
}

void count_sectors(Counters& c, const Warp& w, const uint64_t (&address)[kLanes], uint32_t bytes, bool store) {
    uint64_t sectors = 0, first[2 * kLanes];
    uint32_t n = 0;
    bool sorted = true;
    for_lanes(w.mask, [&](int l) {
        for (uint64_t s = address[l] >> 5; s <= (address[l] + bytes - 1) >> 5; ++s) {
            if (n > 0 && first[n - 1] == s) continue;
            sorted = sorted && (n == 0 || first[n - 1] < s);
            if (n < 2 * kLanes) first[n++] = s;
        }
    });
    if (!sorted) {
        std::sort(first, first + n);
        n = static_cast<uint32_t>(std::unique(first, first + n) - first);
    }
    sectors = n;
    const uint64_t asked = static_cast<uint64_t>(std::popcount(w.mask)) * bytes;
    (store ? c.global_sectors_written : c.global_sectors_read) += sectors;
    (store ? c.global_bytes_written : c.global_bytes_read) += asked;
}

void check_lanes(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], Values values, const char* space) {
    if (values == nullptr) return;
    const auto [a, b] = contradiction(w.mask, address, i.bytes, values);
    if (a < 0) return;
    fail(w, i, launch_failed, a,
         concat("writes another value than lane ", b, " of its warp to ", space, " address ", std::hex, "0x",
                address[a], std::dec, " (a race)"));
}

void resolve_global(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], Pointers& to) {
    const Launch& l = *w.block->launch;
    const bool store = i.flags & kStore;
    if (l.options.check_memory) {
        uint64_t low = ~uint64_t{0}, high = 0;
        for_lanes(w.mask, [&](int k) { low = std::min(low, address[k]), high = std::max(high, address[k]); });
        if (l.ranges.find(low, high - low + i.bytes) == nullptr)
            for_lanes(w.mask, [&](int k) {
                if (!is_valid(l, address[k], i.bytes))
                    out_of_bounds(w, i, k, "global", address[k], i.bytes, describe(l, address[k]));
            });
    }
    if (l.options.check_global) {
        check_lanes(w, i, address, to.values, "global");
        uint32_t bytes[kLanes];
        std::fill(bytes, bytes + kLanes, i.bytes);
        touch_global(w, i, address, bytes, store, to.values);
    }
    if (l.options.count) count_sectors(w.block->counters, w, address, i.bytes, store);
    for (int k = 0; k < kLanes; ++k) to.at[k] = reinterpret_cast<char*>(address[k]);
}

// Lanes whose addresses are not in the block's own memory: in another block's of the cluster, or out of bounds.
void resolve_elsewhere(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], uint32_t lanes, Pointers& to) {
    const bool checks = w.block->launch->options.check_shared;
    for_lanes(lanes, [&](int l) {
        const Place at = shared_place(w, i, l, address[l], i.bytes, i.space != Space::shared);
        to.at[l] = at.block->shared.data() + at.offset;
        if (checks) touch_shared(w, i, l, at, i.bytes, i.flags & kStore, to.values != nullptr ? to.values[l] : nullptr);
    });
}

void resolve_shared(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], Pointers& to) {
    Block& b = *w.block;
    const uint32_t limit = b.launch->own_shared();
    const bool store = i.flags & kStore;
    uint32_t elsewhere = 0;
    for_lanes(w.mask, [&](int l) {
        if (address[l] + i.bytes > limit) elsewhere |= 1u << l;
        to.at[l] = b.shared.data() + address[l];
    });
    if (b.launch->options.check_shared) check_lanes(w, i, address, to.values, "shared");
    if (elsewhere != 0) [[unlikely]]
        resolve_elsewhere(w, i, address, elsewhere, to);
    const uint32_t here = w.mask & ~elsewhere;
    if (b.launch->options.check_shared)
        for_lanes(here, [&](int l) {
            touch_shared(w, i, l, static_cast<uint32_t>(address[l]), i.bytes, store,
                         to.values != nullptr ? to.values[l] : nullptr);
        });
    if (b.launch->options.count) {
        b.counters.shared_bytes += static_cast<uint64_t>(std::popcount(w.mask)) * i.bytes;
        count_conflicts(b.counters, address, here, i.bytes);
    }
}

void resolve_local(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], Pointers& to) {
    Block& b = *w.block;
    const uint64_t each = uint64_t{b.launch->program->local_bytes} + b.launch->program->stack_bytes;
    for_lanes(w.mask, [&](int l) {
        if (address[l] > each || address[l] + i.bytes > each)
            out_of_bounds(w, i, l, "local", address[l], i.bytes, concat("the thread has ", each, " bytes"));
        to.at[l] = b.local.data() + each * (w.index * kLanes + static_cast<uint32_t>(l)) + address[l];
    });
}

void resolve_fixed(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], const std::vector<char>& bytes,
                   const char* space, Pointers& to) {
    for_lanes(w.mask, [&](int l) {
        const uint64_t at = address[l] & ~kWindowBits;
        if (at > bytes.size() || at + i.bytes > bytes.size())
            out_of_bounds(w, i, l, space, at, i.bytes, concat("it has ", bytes.size(), " bytes"));
        to.at[l] = const_cast<char*>(bytes.data()) + at;
    });
}

void resolve_space(Warp& w, const Inst& i, Space space, const uint64_t (&address)[kLanes], Pointers& to) {
    switch (space) {
        case Space::shared:
        case Space::cluster:
            return resolve_shared(w, i, address, to);
        case Space::local:
            return resolve_local(w, i, address, to);
        case Space::param:
            return resolve_fixed(w, i, address, w.block->launch->parameters, "parameter", to);
        case Space::constant:
            return resolve_fixed(w, i, address, w.block->launch->program->constant_bank, "constant", to);
        default:
            return resolve_global(w, i, address, to);
    }
}

Space space_of(uint64_t address) {
    switch (address & kWindowBits) {
        case kSharedWindow:
            return Space::shared;
        case kLocalWindow:
            return Space::local;
        case kParamWindow:
            return Space::param;
        case kConstWindow:
            return Space::constant;
        default:
            return Space::global;
    }
}

}  // namespace

bool is_valid(const Launch& l, uint64_t address, uint64_t bytes) {
    return l.ranges.find(address, bytes) != nullptr || heap().holds(address, bytes);
}

std::string describe(const Launch& l, uint64_t address) {
    const std::string near = heap().describe(address);
    return near.empty() ? l.ranges.describe(address) : near;
}

void addresses(const Warp& w, Ref r, bool wide, int64_t offset, uint64_t (&to)[kLanes]) {
    const auto add = static_cast<uint64_t>(offset);
    if (wide) {
        const uint64_t* a = w.at<uint64_t>(r);
        for (int l = 0; l < kLanes; ++l) to[l] = a[l] + add;
    } else {
        const uint32_t* a = w.at<uint32_t>(r);
        for (int l = 0; l < kLanes; ++l) to[l] = static_cast<uint32_t>(a[l] + static_cast<uint32_t>(add));
    }
}

uint64_t value(const Warp& w, const AddressForm& at, int lane) {
    if (at.wide) return w.at<uint64_t>(at.ref)[lane] + static_cast<uint64_t>(at.offset);
    return w.at<uint32_t>(at.ref)[lane] + static_cast<uint32_t>(at.offset);
}

void resolve(Warp& w, const Inst& i, Pointers& to) {
    uint64_t address[kLanes];
    addresses(w, i.a, i.flags & kWideAddress, i.imm, address);
    check_alignment(w, i, address, i.bytes);
    if (i.space != Space::generic) return resolve_space(w, i, i.space, address, to);
    // lanes of a generic access may go to several spaces
    const uint32_t all = w.mask;
    for (uint32_t left = all; left != 0;) {
        const Space space = space_of(address[std::countr_zero(left)]);
        uint32_t same = 0;
        for_lanes(left, [&](int l) { same |= space_of(address[l]) == space ? 1u << l : 0; });
        uint64_t inside[kLanes];
        for (int l = 0; l < kLanes; ++l) inside[l] = space == Space::global ? address[l] : address[l] & ~kWindowBits;
        w.mask = same;
        resolve_space(w, i, space, inside, to);
        left &= ~same;
    }
    w.mask = all;
}

void check_global(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], const uint32_t (&bytes)[kLanes],
                  bool store) {
    const Launch& l = *w.block->launch;
    if (l.options.check_memory)
        for_lanes(w.mask, [&](int k) {
            if (bytes[k] != 0 && !is_valid(l, address[k], bytes[k]))
                out_of_bounds(w, i, k, "global", address[k], bytes[k], describe(l, address[k]));
        });
    if (l.options.check_global) touch_global(w, i, address, bytes, store, nullptr);
    if (!l.options.count) return;
    const uint32_t all = w.mask;
    for_lanes(all, [&](int k) {
        if (bytes[k] == 0) w.mask &= ~(1u << k);
    });
    if (w.mask) count_sectors(w.block->counters, w, address, i.bytes, store);
    w.mask = all;
}

void check_shared_bounds(Warp& w, const Inst& i, int lane, uint64_t address, uint32_t bytes) {
    const Launch& launch = *w.block->launch;
    const uint32_t limit = launch.own_shared();
    const bool reserved = address >= launch.reserved_begin() && address + bytes <= launch.shared_bytes();
    if ((address > limit || address + bytes > limit) && !reserved)
        out_of_bounds(w, i, lane, "shared", address, bytes, concat("the block has ", limit, " bytes"));
}

Place shared_place(Warp& w, const Inst& i, int lane, uint64_t address, uint32_t bytes, bool cluster) {
    Block* b = w.block;
    const Cluster& c = *b->cluster;
    if (const uint64_t window = address & kWindowBits; window != 0 && window != kSharedWindow)
        fail(w, i, illegal_address, lane,
             concat("address 0x", std::hex, address, " is none of shared memory (out of bounds)"));
    address &= ~kWindowBits;
    if (const uint64_t rank = address >> kClusterShift; rank != 0 && rank <= c.blocks.size()) {
        if (!cluster && rank - 1 != b->rank)
            fail(w, i, illegal_address, lane,
                 concat("accesses shared memory of block rank ", rank - 1, " as if it were the block's own (out of ",
                        "bounds of shared::cta)"));
        b = c.blocks[rank - 1].get();
        address &= (1u << kClusterShift) - 1;
        if (b->exited)
            fail(w, i, illegal_address, lane,
                 concat("accesses shared memory of block rank ", rank - 1, ", which has ended"));
    }
    check_shared_bounds(w, i, lane, address, bytes);
    return {b, static_cast<uint32_t>(address)};
}

void shared_error(Warp& w, const Inst& i, int lane, Place at, const char* wrong) {
    const SharedShadow& s = at.block->shadow;
    const auto warps = static_cast<uint32_t>(w.block->warps.size());
    std::string where;
    if (at.block != w.block) where += concat(" of block rank ", at.block->rank);
    if (const uint32_t other = s.other_warp(); other != w.number) {
        where += concat(", other warp ", other % warps);
        if (other / warps != w.block->rank) where += concat(" of block rank ", other / warps);
    }
    fail(w, i, launch_failed, lane,
         concat(wrong, ", at shared address ", std::hex, "0x", s.culprit(), std::dec, where));
}

namespace {

// Warps may talk to each other by strong accesses to a place in shared memory, too: flags, locks, counters.
void acquire_shared(const Warp& w, const Inst& i, Place at) {
    const auto it = at.block->flags.find(at.offset);
    if (it == at.block->flags.end()) return;
    Clocks& clocks = w.block->cluster->clocks;
    i.flags& kAcquires ? clocks.acquire(w.number, it->second, false) : clocks.poll(w.number, it->second);
}

void release_shared(const Warp& w, const Inst& i, Place at) {
    if (!(i.flags & kAtomic)) at.block->flags.erase(at.offset);  // what others left there is over
    Clocks& clocks = w.block->cluster->clocks;
    if ((i.flags & kReleases) || clocks.has_fenced(w.number))
        clocks.release(w.number, at.block->flags[at.offset], !(i.flags & kReleases));
}

}  // namespace

void touch_shared(Warp& w, const Inst& i, int lane, Place at, uint32_t bytes, bool store, const char* value) {
    SharedShadow& s = at.block->shadow;
    const bool atomic = i.flags & kAtomic, strong = i.flags & kStrongAccess;
    if (strong && (atomic || !store)) acquire_shared(w, i, at);
    const char* wrong = atomic  ? s.atomic(w.number, at.offset, bytes)
                        : store ? s.write(w.number, at.offset, bytes, strong)
                                : s.read(w.number, at.offset, bytes, strong);
    if (strong && store) release_shared(w, i, at);
    if (wrong == nullptr) return;
    // warps may tell a place the same: Triton lets each warp that holds a copy of a number store it
    if (s.both_wrote() && value != nullptr && std::memcmp(at.block->shared.data() + at.offset, value, bytes) == 0)
        return;
    shared_error(w, i, lane, at, wrong);
}

void touch_async(Warp& w, const Inst& i, int lane, Place at, uint32_t bytes) {
    if (!w.block->launch->options.check_shared) return;
    if (const char* wrong = at.block->shadow.async_read(w.number, at.offset, bytes))
        shared_error(w, i, lane, at, wrong);
}

namespace {

// The usual case: no two lanes meet in a bank. Accesses are aligned, so none wraps around the last bank.
bool each_bank_once(const uint64_t* address, uint32_t lanes, uint32_t bytes) {
    const uint32_t words = bytes <= 4 ? 1 : (1u << bytes / 4) - 1;
    uint32_t used = 0, twice = 0;
    for_lanes(lanes, [&](int l) {
        const uint32_t banks = words << (address[l] >> 2 & 31);
        twice |= used & banks;
        used |= banks;
    });
    return twice == 0;
}

}  // namespace

// 32 banks of 4 bytes; wider accesses go in halves or quarters of the warp.
void count_conflicts(Counters& c, const uint64_t* address, uint32_t lanes, uint32_t bytes) {
    if (lanes == 0) return;
    const int step = bytes <= 4 ? kLanes : static_cast<int>(4 * kLanes / bytes);
    for (int first = 0; first < kLanes; first += step) {
        const uint32_t part = step == kLanes ? lanes : lanes & (((1u << step) - 1) << first);
        if (part == 0 || each_bank_once(address, part, bytes)) continue;
        uint32_t seen[kLanes][kLanes];
        uint8_t count[kLanes] = {};
        uint32_t most = 1;
        for_lanes(part, [&](int l) {
            for (uint64_t word = address[l] >> 2; word <= (address[l] + bytes - 1) >> 2; ++word) {
                const auto bank = word & 31;
                bool known = false;
                for (uint32_t k = 0; k < count[bank] && !known; ++k) known = seen[bank][k] == word;
                if (known) continue;
                seen[bank][count[bank]] = static_cast<uint32_t>(word);
                most = std::max<uint32_t>(most, ++count[bank]);
            }
        });
        c.bank_conflicts += most - 1;
    }
}

}  // namespace emu
