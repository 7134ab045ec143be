// Structured sparse A: of each chunk of elements half are there, and metadata says which.
//
// A chunk is four elements of 8 or 16 bits (two are there), two of tf32 (one is there), or four pairs of 4-bit elements
// (two pairs are there). Four bits of metadata name the two by their index, the lower one's index in the lower two
// bits; for tf32 0100 is the first element and 1110 the second. A word of metadata holds eight chunks:
//   16 bits and more  lane 4 g + h: four chunks of row g, then four of row g + 8; h counts the fours along the row
//   8 bits and less   lane 4 g + h: eight chunks of row g + 8 (h % 2); h / 2 counts the eights along the row
// Where a row has fewer chunks than a group of four lanes could hold, the selector says which lane or pair of lanes it
// is.
#pragma once

#include "../exec/block.h"
#include "elements.h"

namespace emu {

constexpr uint32_t chunk_of(Element e) { return bits_of(e) == 32 ? 2 : bits_of(e) == 4 ? 8 : 4; }
// How many selectors there are for rows of k elements: a group of four lanes holds 32 chunks, of two rows.
constexpr uint32_t selectors(Element e, uint32_t k) { return 16 / (k / chunk_of(e)); }

// From packed[16][k / 2] to full[16][k].
void expand_sparse(const Warp& w, const Inst& i, Element e, uint32_t k, const uint32_t* metadata, uint32_t selector,
                   bool ordered, const double* packed, double* full);

}  // namespace emu
