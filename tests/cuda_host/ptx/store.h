#pragma once
#include "runtime.h"
namespace nk::ptx {
template <class T, int N>
inline void store_16(T* to, const T (&v)[N]) {
    static_assert(N * sizeof(T) == 16, "16 bytes");
    memcpy(to, v, sizeof v);
}
}  // namespace nk::ptx
