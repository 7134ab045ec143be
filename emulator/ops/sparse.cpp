#include "sparse.h"

namespace emu {

void expand_sparse(const Warp& w, const Inst& i, Element e, uint32_t k, const uint32_t* metadata, uint32_t selector,
                   bool ordered, const double* packed, double* full) {
    const bool wide = bits_of(e) >= 16, single = e == Element::tf32;
    const uint32_t span = chunk_of(e), chunks = k / span, per = std::max(1u, span / 4);  // per: elements to an index
    std::fill_n(full, 16 * k, 0.0);
    for (uint32_t row = 0; row < 16; ++row)
        for (uint32_t c = 0; c < chunks; ++c, full += span) {
            const uint32_t along = wide ? c / 4 + selector * (chunks / 4) : c / 8 + selector * (chunks / 8);
            const uint32_t lane = 4 * (row % 8) + (wide ? along : 2 * along + row / 8);
            const uint32_t bits = metadata[lane] >> (wide ? 16 * (row / 8) + 4 * (c % 4) : 4 * (c % 8)) & 15;
            const uint32_t first = bits & 3, second = bits >> 2;
            const bool good = single ? bits == 4 || bits == 14 : first != second && !(ordered && first > second);
            if (!good)
                fail(w, i, launch_failed, static_cast<int>(lane),
                     concat("the metadata ", std::hex, "0x", metadata[lane], std::dec, " names elements ", first,
                            " and ", second, " of chunk ", c, " of row ", row));
            if (single) {
                full[bits == 14] = *packed++;
                continue;
            }
            for (const uint32_t place : {first, second})
                for (uint32_t n = 0; n < per; ++n) full[place * per + n] = *packed++;
        }
}

}  // namespace emu
