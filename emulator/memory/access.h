// From the addresses of a warp's access to host pointers, by way of the checkers and counters.
#pragma once

#include "../checks/lanes.h"
#include "../decode/forms.h"
#include "../exec/block.h"

namespace emu {

struct Pointers {
    char* at[kLanes];
    Values values = nullptr;  // of a store, set before
};

// Fills in the lanes of the mask for an access of i.bytes each, at register i.a + i.imm in i.space.
void resolve(Warp& w, const Inst& i, Pointers& to);

// Global memory that the launch may touch, and how an address lies to it.
bool is_valid(const Launch& l, uint64_t address, uint64_t bytes);
std::string describe(const Launch& l, uint64_t address);

// The addresses themselves.
void addresses(const Warp& w, Ref r, bool wide, int64_t offset, uint64_t (&to)[kLanes]);

// What the checkers of global memory say of it: never written, races. With the bytes of each lane.
void touch_global(Warp& w, const Inst& i, const uint64_t* address, const uint32_t* bytes, bool store, Values values);
// The same of one lane's bulk copy, when it is issued.
void touch_global(Warp& w, const Inst& i, int lane, uint64_t address, uint64_t bytes, Touch kind);
// Behind an atomic or strong load: what others made known there is known here.
void acquire_global(Warp& w, const Inst& i, const Pointers& from);

uint64_t value(const Warp& w, const AddressForm& at, int lane);

// One side of an asynchronous copy: checks alone.
void check_global(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], const uint32_t (&bytes)[kLanes],
                  bool store);
void check_shared_bounds(Warp& w, const Inst& i, int lane, uint64_t address, uint32_t bytes);
// An address in shared memory, of this block or (`cluster`) of any in its cluster; generic ones, too.
Place shared_place(Warp& w, const Inst& i, int lane, uint64_t address, uint32_t bytes, bool cluster);
// ldmatrix and the landing of copies. `value`: what is stored, where known.
void touch_shared(Warp& w, const Inst& i, int lane, Place at, uint32_t bytes, bool store, const char* value = nullptr);
inline void touch_shared(Warp& w, const Inst& i, int lane, uint32_t address, uint32_t bytes, bool store,
                         const char* value = nullptr) {
    touch_shared(w, i, lane, Place{w.block, address}, bytes, store, value);
}
// What the asynchronous proxy reads for a warp (a bulk copy's source): checked when it is issued. What the generic
// proxy wrote there needs fence.proxy.async on its way to this warp. Of wgmma, see SharedShadow::late_read.
void touch_async(Warp& w, const Inst& i, int lane, Place at, uint32_t bytes);
// What the shadow said of an access.
[[noreturn]] void shared_error(Warp& w, const Inst& i, int lane, Place at, const char* wrong);
void count_conflicts(Counters& c, const uint64_t* address, uint32_t lanes, uint32_t bytes);

}  // namespace emu
