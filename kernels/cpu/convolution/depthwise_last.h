// Depthwise convolutions whose channels lie side by side: read and written in place, no row is copied.
//
// A vector of 16-bit channels is two of accumulators, those of even and of odd channels (load_pair): weights are kept
// in 16 bits as well, so that they fall apart in the same way. The last vector overlaps the one before it.
#pragma once

#include "../product/lanes.h"
#include "../simd/wide.h"
#include "depthwise.h"

namespace nk::NK_ISA {

template <class T>
struct last_vec {
    using type = vec<float>;
};
template <>
struct last_vec<bf16> {
    using type = two<vec<float>>;
};
template <class T>
using LastVec = typename last_vec<T>::type;

template <class T>
int64_t last_channel(int64_t v, int64_t channels) {
    constexpr int lanes = LastVec<T>::lanes;
    return v * lanes + lanes <= channels ? v * lanes : channels - lanes;
}

}  // namespace nk::NK_ISA
