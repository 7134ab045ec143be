// What bulk and tensor copies have in common once the rows are known that they move.
#pragma once

#include "../exec/cluster.h"
#include "../memory/access.h"

namespace emu::ops {

// Checks t.pieces as accesses to global memory, and counts them.
void check_rows(Warp& w, const Inst& i, int lane, const std::vector<Piece>& rows, bool store);
void issue_to_shared(Warp& w, const Inst& i, int lane, const AsyncForm& f, Transfer t);
void issue_to_global(Warp& w, const Inst& i, int lane, const AsyncForm& f, Transfer t);
// `what` is a multiple of `of`, or the copy is misaligned.
void need_multiple(Warp& w, const Inst& i, int lane, const char* what, uint64_t x, uint64_t of);

}  // namespace emu::ops
