#include "descriptor.h"

#include "../memory/access.h"

namespace emu {

namespace {

// One chunk of 16 bytes, as it was when the product was issued or later.
const char* chunk_at(Warp& w, const Wgmma& op, uint32_t address) {
    Block& b = *w.block;
    const Inst& i = *op.inst;
    check_shared_bounds(w, i, 0, address, 16);
    if (b.launch->options.check_shared)
        if (const char* wrong = b.shadow.late_read(w.number, op.known, address, 16))
            fail(w, i, launch_failed, 0,
                 concat("wgmma ", wrong, ", at shared address ", std::hex, "0x", b.shadow.culprit(), std::dec,
                        ", warp ", b.shadow.other_warp()));
    return b.shared.data() + address;
}

}  // namespace

void read_matrix(Warp& w, const Wgmma& op, uint64_t descriptor, const SharedMatrix& m, double* to) {
    const Descriptor d(descriptor);
    const uint32_t per = 128 / bits_of(m.element);
    const uint32_t outer = m.mn_major ? m.rows / per : m.k / per, inner = m.mn_major ? m.k : m.rows;
    if (!m.mn_major && d.width != 16 && outer * 16 > d.width)
        fail(w, *op.inst, launch_failed, 0,
             concat("a matrix of ", outer * 16, " bytes along k does not fit a swizzle of ", d.width));
    const bool counts = w.block->launch->options.count;
    if (counts) w.block->counters.shared_bytes += uint64_t{m.rows} * m.k * bits_of(m.element) / 8;
    uint64_t address[kLanes];
    alignas(32) double values[8][128];
    for (uint32_t o = 0; o < outer; ++o)
        for (uint32_t n = 0; n < inner; n += 8) {  // eight chunks are read at once: those of a core matrix
            for (uint32_t j = 0; j < 8; ++j) address[j] = m.mn_major ? d.mn_major(o, n + j) : d.k_major(n + j, o);
            if (counts) count_conflicts(w.block->counters, address, 0xff, 16);
            for (uint32_t j = 0; j < 8; ++j)
                unpack(m.element, chunk_at(w, op, static_cast<uint32_t>(address[j])), per, values[j]);
            for (uint32_t j = 0; j < 8; ++j)
                for (uint32_t e = 0; e < per; ++e) {
                    const uint32_t row = m.mn_major ? o * per + e : n + j, k = m.mn_major ? n + j : o * per + e;
                    to[m.panels ? (row / 8 * m.k + k) * 8 + row % 8 : row * m.k + k] = values[j][e];
                }
        }
}

}  // namespace emu
