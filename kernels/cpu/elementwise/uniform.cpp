// Numbers of [0, 1) by counters: element i is word i % 4 of block i / 4; in f64 words 2i and 2i + 1 together.
#include "../../math/philox.h"
#include "register.h"
#include "storage.h"

namespace nk::NK_ISA {

namespace {

constexpr int kBlocks = 16;  // beside each other, so that the compiler finds vectors of them

template <int D>
constexpr int bits = D == 2   ? 11
                     : D == 3 ? 8
                              : 24;

template <int D>
void uniform(const cpu::Uniform& u) {
    using T = typename storage<D>::type;
    using S = scalar_for<T>;
    constexpr int per_block = D == 1 ? 2 : 4;
    constexpr int L = compute_vec<T>::lanes;
    T* const out = static_cast<T*>(u.out);
    S ready[kBlocks * per_block + L];
    for (int64_t first = 0; first < u.n; first += kBlocks * per_block) {
        const uint64_t block = u.block + static_cast<uint64_t>(first / per_block);
        uint32_t word[4][kBlocks];
        for (int b = 0; b < kBlocks; ++b) {
            const math::PhiloxBlock made = math::philox(u.seed, block + static_cast<uint64_t>(b), u.stream);
            for (int w = 0; w < 4; ++w) word[w][b] = made.word[w];
        }
        for (int b = 0; b < kBlocks; ++b) {
            if constexpr (D == 1) {
                ready[2 * b] = math::uniform(word[0][b], word[1][b]);
                ready[2 * b + 1] = math::uniform(word[2][b], word[3][b]);
            } else {
                for (int w = 0; w < 4; ++w) ready[4 * b + w] = math::uniform<bits<D>>(word[w][b]);
            }
        }
        const int64_t n = min64(kBlocks * per_block, u.n - first);
        for (int64_t i = 0; i < n; i += L) store(out + first + i, load(ready + i), static_cast<int>(min64(L, n - i)));
    }
}

}  // namespace

void register_uniform(cpu::ElementwiseEntries& e) {
    e.uniform[0] = uniform<0>;
    e.uniform[1] = uniform<1>;
    e.uniform[2] = uniform<2>;
    e.uniform[3] = uniform<3>;
}

}  // namespace nk::NK_ISA
