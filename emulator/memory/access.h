// From the addresses of a warp's access to host pointers, by way of the checkers and counters.
#pragma once

#include "../checks/lanes.h"
#include "../exec/block.h"

namespace emu {

struct Pointers {
    char* at[kLanes];
    Values values = nullptr;  // of a store, set before
};

// Fills in the lanes of the mask for an access of i.bytes each, at register i.a + i.imm in i.space.
void resolve(Warp& w, const Inst& i, Pointers& to);

// The addresses themselves.
void addresses(const Warp& w, Ref r, bool wide, int64_t offset, uint64_t (&to)[kLanes]);

// What the checkers of global memory say of it: never written, races. With the bytes of each lane.
void touch_global(Warp& w, const Inst& i, const uint64_t* address, const uint32_t* bytes, bool store, Values values);
// Behind an atomic or strong load: what others made known there is known here.
void acquire_global(Warp& w, const Inst& i, const Pointers& from);

// One side of an asynchronous copy: checks alone.
void check_global(Warp& w, const Inst& i, const uint64_t (&address)[kLanes], const uint32_t (&bytes)[kLanes],
                  bool store);
void check_shared_bounds(Warp& w, const Inst& i, int lane, uint64_t address, uint32_t bytes);
// ldmatrix and the landing of copies. `value`: what is stored, where known.
void touch_shared(Warp& w, const Inst& i, int lane, uint32_t address, uint32_t bytes, bool store,
                  const char* value = nullptr);
void count_conflicts(Counters& c, const uint64_t* address, uint32_t lanes, uint32_t bytes);

}  // namespace emu
