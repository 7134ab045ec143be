// From a linear index to offsets in several strided tensors, on the host and on the device.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define NK_INDEX_FN __host__ __device__ __forceinline__
#define NK_ROLLED _Pragma("unroll 1")
#else
#define NK_INDEX_FN inline
#define NK_ROLLED
#endif

namespace nk::cuda {

inline constexpr int kLayoutDims = 8;  // strided dims one launch can walk; the host loops over further ones

// n / divisor by one multiplication, exact for n < 2^31 and 1 <= divisor < 2^31 (Granlund and Montgomery 1994):
// shift = ceil(log2 d), magic = floor(2^32 (2^shift - d) / d) + 1, n / d = (mulhi(n, magic) + n) >> shift.
// The sum stays below 2^32 because both terms are below 2^31.
struct Divisor {
    uint32_t value = 1, magic = 1, shift = 0;
};

inline Divisor make_divisor(uint32_t d) {
    Divisor r;
    r.value = d;
    while ((uint64_t{1} << r.shift) < d) ++r.shift;
    r.magic = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << r.shift) - d)) / d + 1);
    return r;
}

NK_INDEX_FN uint32_t divide(uint32_t n, const Divisor& d) {
#ifdef __CUDA_ARCH__
    return (__umulhi(n, d.magic) + n) >> d.shift;
#else
    return (static_cast<uint32_t>((uint64_t{n} * d.magic) >> 32) + n) >> d.shift;
#endif
}

// N tensors over one index space of at most 2^31 - 1 points; dim 0 is the innermost (runs fastest).
template <int N>
struct Layout {
    int32_t ndim = 1;
    Divisor size[kLayoutDims];
    int64_t stride[N][kLayoutDims] = {};  // elements
};

// Offsets of point `index` in tensors First .. First + Count - 1. With one dim there is no division and
// `index` may exceed 32 bits, which is how dense tensors of any size are walked.
template <int First, int Count, int N>
NK_INDEX_FN void offsets(const Layout<N>& l, int64_t index, int64_t (&offset)[Count]) {
    static_assert(First + Count <= N, "more tensors asked for than the layout has");
    if (l.ndim == 1) {
        for (int k = 0; k < Count; ++k) offset[k] = index * l.stride[First + k][0];
        return;
    }
    uint32_t rest = static_cast<uint32_t>(index);
    for (int k = 0; k < Count; ++k) offset[k] = 0;
    NK_ROLLED
    for (int d = 0; d < l.ndim - 1; ++d) {
        const uint32_t next = divide(rest, l.size[d]);
        const int64_t i = rest - next * l.size[d].value;
        for (int k = 0; k < Count; ++k) offset[k] += i * l.stride[First + k][d];
        rest = next;
    }
    for (int k = 0; k < Count; ++k) offset[k] += static_cast<int64_t>(rest) * l.stride[First + k][l.ndim - 1];
}

}  // namespace nk::cuda
