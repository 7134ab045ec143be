// As the PTX ISA puts it: lane l names row l % 8 of matrix l / 8; lane l receives, of row l / 4, the 32-bit word l % 4,
// or with .trans the elements (2 (l % 4), l / 4) and (2 (l % 4) + 1, l / 4).
#pragma once
#include "runtime.h"
namespace nk::cuda {
extern char shared[];
}
namespace nk::ptx {
struct LdmatrixLane {
    uint32_t row;
    uint32_t* r;
};
template <bool Trans>
void ldmatrix_work(void** lanes) {
    auto lane = [&](int i) { return static_cast<LdmatrixLane*>(lanes[i]); };
    for (int j = 0; j < 4; ++j) {
        unsigned groups = 0;
        for (int i = 0; i < 8; ++i) {
            host::check_shared(lane(j * 8 + i)->row, 16, 16);
            groups |= 1u << (lane(j * 8 + i)->row / 16 % 8);
        }
        host::bank_conflicts += 8 - __builtin_popcount(groups);
    }
    for (int l = 0; l < 32; ++l)
        for (int j = 0; j < 4; ++j) {
            uint16_t pair[2];
            for (int e = 0; e < 2; ++e) {
                const int row = Trans ? l % 4 * 2 + e : l / 4, column = Trans ? l / 4 : l % 4 * 2 + e;
                memcpy(&pair[e], nk::cuda::shared + lane(j * 8 + row)->row + column * 2, 2);
            }
            memcpy(&lane(l)->r[j], pair, 4);
        }
}
inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t row) {
    LdmatrixLane mine{row, r};
    host::warp_collective(&mine, ldmatrix_work<false>);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row) {
    LdmatrixLane mine{row, r};
    host::warp_collective(&mine, ldmatrix_work<true>);
}
}  // namespace nk::ptx
