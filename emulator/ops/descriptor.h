// wgmma's descriptors of matrices in shared memory.
//
// Bits 0-13 start address, 16-29 leading-dimension offset, 32-45 stride offset (all in units of 16 bytes), 49-51 base
// offset, 62-63 swizzle: 0 none, 1 of 128 bytes, 2 of 64, 3 of 32. A matrix is a grid of chunks of 16 bytes, T elements
// each; with W the bytes of the swizzle, a chunk lies at start +
//   K-major     row r, chunk c along k:     none: r % 8 * 16 + r / 8 * stride + c * leading
//                                           else: r % 8 * W + r / 8 * stride + c * 16
//   MN-major    chunk g along the rows, k:  none: k % 8 * 16 + k / 8 * leading + g * stride
//                                           else: k % 8 * W + k / 8 * stride + g % (W/16) * 16 + g / (W/16) * leading
// and then the bits of that address from 4 on (one for 32 bytes, two for 64, three for 128) are swapped by those from 7
// on, counted from where the pattern begins (the base offset).
#pragma once

#include "../exec/block.h"
#include "elements.h"

namespace emu {

struct Descriptor {
    uint32_t start, leading, stride, base, width;  // width: bytes of the swizzle; 16: none

    explicit Descriptor(uint64_t bits)
        : start(static_cast<uint32_t>(bits & 0x3fff) << 4),
          leading(static_cast<uint32_t>(bits >> 16 & 0x3fff) << 4),
          stride(static_cast<uint32_t>(bits >> 32 & 0x3fff) << 4),
          base(static_cast<uint32_t>(bits >> 49 & 7)) {
        constexpr uint32_t widths[] = {16, 128, 64, 32};
        width = widths[bits >> 62];
    }

    uint32_t swizzled(uint32_t address) const { return address ^ ((((address >> 7) - base) & (width / 16 - 1)) << 4); }
    uint32_t k_major(uint32_t row, uint32_t chunk) const {
        const uint32_t along = width == 16 ? chunk * leading : chunk * 16;
        return swizzled(start + row % 8 * width + row / 8 * stride + along);
    }
    uint32_t mn_major(uint32_t group, uint32_t k) const {
        if (width == 16) return start + k % 8 * 16 + k / 8 * leading + group * stride;
        const uint32_t per = width / 16;
        return swizzled(start + k % 8 * width + k / 8 * stride + group % per * 16 + group / per * leading);
    }
};

// A matrix of rows x k elements as wgmma reads it: checked, counted, and unpacked to to[row][k], or in
// panels of eight rows, to[row / 8][k][row % 8].
struct SharedMatrix {
    Element element;
    uint32_t rows, k;
    bool mn_major, panels;
};
void read_matrix(Warp& w, const Wgmma& op, uint64_t descriptor, const SharedMatrix& m, double* to);

}  // namespace emu
