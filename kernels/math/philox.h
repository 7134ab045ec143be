// Random numbers by counters: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
// 1, 2, 3" (SC 2011). The i-th block of four words is a function of the seed and i alone, so any thread of any backend
// can make any of them, and forward and backward the same ones again, with nothing kept in between.
#pragma once

#include "scalar.h"

namespace nk::math {

struct PhiloxBlock {
    uint32_t word[4];
};

NK_HD uint32_t high_product(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); }

// counter: words 0 and 1 number the blocks of one stream, words 2 and 3 the streams.
NK_HD PhiloxBlock philox(uint64_t seed, uint64_t block, uint64_t stream = 0) {
    uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
    uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint32_t a = high_product(0xD2511F53u, c0), b = high_product(0xCD9E8D57u, c2);
        const uint32_t low_a = 0xD2511F53u * c0, low_b = 0xCD9E8D57u * c2;
        c0 = b ^ c1 ^ k0, c1 = low_b;
        c2 = a ^ c3 ^ k1, c3 = low_a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// A number of [0, 1) with as many random bits as the type of the result holds exactly: 24, 11 (f16) or 8 (bf16), as
// torch's uniform_ has them. More bits would round to 1.
template <int Bits>
NK_HD float uniform(uint32_t word) {
    static_assert(Bits <= 24);
    return static_cast<float>(word >> (32 - Bits)) * (1.0f / static_cast<float>(1u << Bits));
}
NK_HD double uniform(uint32_t high, uint32_t low) {
    return static_cast<double>((uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

}  // namespace nk::math
