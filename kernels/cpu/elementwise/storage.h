// Element types as the kernels of elements name them.
#pragma once

#include "../simd/vec.h"

namespace nk::NK_ISA {

// The storage type of each DType, in its order.
template <int D>
struct storage;
template <>
struct storage<0> {
    using type = float;
};
template <>
struct storage<1> {
    using type = double;
};
template <>
struct storage<2> {
    using type = f16;
};
template <>
struct storage<3> {
    using type = bf16;
};

template <class T>
using scalar_for = typename compute<T>::type;
template <class T>
inline constexpr int lanes_for = compute_vec<T>::lanes;

NK_HD int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace nk::NK_ISA
