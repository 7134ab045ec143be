#include "cpu/repeated_operand.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "cpu/strided_copy.h"

namespace nk::cpu {

namespace {

constexpr int64_t kMostPeriod = 16384;  // elements: more would crowd the operands out of the second-level cache
constexpr int64_t kLeastStretch = 2048;
constexpr int64_t kLine = 32;       // elements of 16 bits in a cache line
constexpr int64_t kLeastTurns = 4;  // of a period; fewer do not pay for the buffer

}  // namespace

int64_t period_of(const IndexSpace& s, int dense, int t) {
    int64_t period = 1, n = 1;
    for (int d = 0; d < s.ndim; ++d) {
        for (int j = 0; j < dense; ++j)
            if (s.stride[j][d] != n) return 0;
        n *= s.size[d];
        if (s.stride[t][d] != 0) period = n;
    }
    return period <= kMostPeriod && period * kLeastTurns <= n ? period : 0;
}

int64_t stretch_of(int64_t period) {
    const int64_t turns = (kLeastStretch + period - 1) / period, line = kLine / std::gcd(period, kLine);
    const int64_t even = (turns + line - 1) / line * line;
    return period * (period * even <= kMostPeriod ? even : turns);
}

std::unique_ptr<char[]> repeated(const IndexSpace& s, int t, const void* from, int size, int64_t period,
                                 int64_t stretch) {
    std::unique_ptr<char[]> to(new char[static_cast<size_t>(stretch * size)]);
    int64_t index[kMaxDims] = {}, offset = 0;
    for (int64_t i = 0; i < period; i += s.size[0]) {
        copy_strided(to.get() + i * size, 1, static_cast<const char*>(from) + offset * size, s.stride[t][0], s.size[0],
                     size);
        for (int d = 1; d < s.ndim; ++d) {
            offset += s.stride[t][d];
            if (++index[d] < s.size[d]) break;
            offset -= s.size[d] * s.stride[t][d];
            index[d] = 0;
        }
    }
    for (int64_t done = period; done < stretch; done += std::min(done, stretch - done))
        std::memcpy(to.get() + done * size, to.get(), static_cast<size_t>(std::min(done, stretch - done) * size));
    return to;
}

}  // namespace nk::cpu
